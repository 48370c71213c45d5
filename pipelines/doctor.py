"""A location -> what holds there of what archives rely on, tried out and said in words."""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from manifests.storage import LOCAL, Location, Store, connect, delta_options

RACERS = 8
MAX_SKEW_SECONDS = 60  # S3 refuses requests from 900 s on; the mtimes of images are compared in seconds
MIN_FREE_BYTES = 2**30
UNSAFE = "two encode runs at the same time could overwrite each other's commits; run one at a time"


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    name: str
    ok: bool
    words: str  # what was seen, and what follows from it where it does not hold


@dataclass(frozen=True)
class _Place:
    """A store, and a folder in it that nobody else uses."""

    store: Store
    folder: str

    def at(self, name: str) -> str:
        return f"{self.folder}/{name}"


def probe(location: Location) -> list[Finding]:
    """Tries all that `encode` does to an archive there, in a folder of its own that is gone afterwards."""
    try:
        delta_options(location)
        store = connect(location)
    except (OSError, ValueError) as error:
        return [Finding("credentials", False, str(error))]
    place = _Place(store, f".archiver-doctor-{secrets.token_hex(8)}")
    was_there = location.scheme != LOCAL or os.path.isdir(location.url)
    try:
        findings = [_try(_write_and_read, place)]
        if findings[0].ok:  # without it nothing else can be told
            findings += [_try(check, place) for check in _CHECKS]
            if location.scheme == LOCAL:
                findings.append(_free_space(location.url))
    finally:
        _clean_up(place)
        if not was_there:
            with suppress(OSError):
                os.rmdir(location.url)
    return findings


def _try(check: Callable[[_Place], Finding], place: _Place) -> Finding:
    try:
        return check(place)
    except OSError as error:
        name = check.__name__.strip("_").replace("_", " ")
        return Finding(name, False, f"{_kind(error)}: {error}")


def _kind(error: OSError) -> str:
    match error:
        case PermissionError():
            return "not allowed"
        case FileNotFoundError():
            return "not found"
        case ConnectionError() | TimeoutError():
            return "cannot be reached"
        case _:
            return "failed"


def _write_and_read(place: _Place) -> Finding:
    content = secrets.token_bytes(10_000)
    place.store.write(place.at("whole"), content)
    found, size = place.store.read(place.at("whole")), place.store.size(place.at("whole"))
    if found != content or size != len(content):
        return Finding(
            "write and read", False, f"{len(content)} bytes written, {len(found)} others read back"
        )
    return Finding("write and read", True, "credentials are accepted, what is written is read back")


def _range_read(place: _Place) -> Finding:
    whole = place.store.read(place.at("whole"))
    found = place.store.read_range(place.at("whole"), 5_000, 5_100)
    if found != whole[5_000:5_100]:
        words = f"asked for 100 bytes, got {len(found)}, not the right ones: single images cannot be restored"
        return Finding("range read", False, words)
    return Finding("range read", True, "single images are restored without reading whole parts")


def _put_if_absent(place: _Place) -> Finding:
    first = place.store.create(place.at("claimed"), b"first")
    second = place.store.create(place.at("claimed"), b"second")
    if not first or second or place.store.read(place.at("claimed")) != b"first":
        return Finding("put if absent", False, f"a second writer replaced the first one's object: {UNSAFE}")
    return Finding("put if absent", True, "a commit is never overwritten by another")


def _put_if_absent_race(place: _Place) -> Finding:
    def claim(_: int) -> bool:
        return place.store.create(place.at("raced"), secrets.token_bytes(8))

    with ThreadPoolExecutor(RACERS) as pool:
        winners = sum(pool.map(claim, range(RACERS)))
    if winners != 1:
        return Finding(
            "put if absent race",
            False,
            f"{winners} of {RACERS} writers at once were told that they won: {UNSAFE}",
        )
    return Finding("put if absent race", True, f"one of {RACERS} writers at once won")


def _listing(place: _Place) -> Finding:
    place.store.write(place.at("fresh/object"), b"fresh")
    listed = {entry.path: entry.size for entry in place.store.list(place.folder)}
    if listed.get(place.at("fresh/object")) != 5:
        return Finding(
            "listing",
            False,
            "a fresh object is not listed: finished parts would be encoded again after a crash",
        )
    return Finding("listing", True, "fresh objects are listed at once")


def _clock(place: _Place) -> Finding:
    before = time.time()
    place.store.write(place.at("now"), b"")
    after = time.time()
    theirs = next((e.mtime for e in place.store.list(place.folder) if e.path == place.at("now")), None)
    if theirs is None:
        return Finding("clock", False, "the store does not list a fresh object, so its time is unknown")
    # They count whole seconds, and may have stamped it at any moment of the request.
    skew = 0.0 if before - 1 <= theirs <= after + 1 else theirs - (before + after) / 2
    words = f"this machine's clock and the store's differ by {abs(skew):.0f} s"
    if abs(skew) > MAX_SKEW_SECONDS:
        return Finding("clock", False, f"{words}: S3 refuses requests from 15 minutes on; set the clock")
    return Finding("clock", True, words)


def _delete(place: _Place) -> Finding:
    place.store.write(place.at("doomed"), b"1")
    place.store.delete(place.at("doomed"))
    if place.store.exists(place.at("doomed")) or place.at("doomed") in _paths(place):
        return Finding("delete", False, "a deleted object is still there: vacuum would free nothing")
    return Finding("delete", True, "deleted objects are gone at once")


_CHECKS = (_range_read, _put_if_absent, _put_if_absent_race, _listing, _clock, _delete)


def _free_space(root: str) -> Finding:
    free = shutil.disk_usage(root).free
    return Finding("free space", free >= MIN_FREE_BYTES, f"{free / 2**30:,.1f} GiB free")


def _paths(place: _Place) -> Iterator[str]:
    return (entry.path for entry in place.store.list(place.folder))


_NAMES = ("whole", "claimed", "raced", "fresh/object", "now", "doomed")


def _clean_up(place: _Place) -> None:
    """By name, and not from a listing: that listings can be trusted is one of the questions."""
    for name in _NAMES:
        with suppress(OSError):  # a finding has said by now what does not work here
            place.store.delete(place.at(name))
