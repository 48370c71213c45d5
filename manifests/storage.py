"""A URL and its options -> a store of objects for us, and storage options for Delta Lake."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import fsspec

LOCAL, S3 = "local", "s3"


@dataclass(frozen=True, repr=False)
class Location:
    """Where objects lie and how to get at them: small and picklable, each process connects by itself."""

    url: str  # an absolute local path, or scheme://...; no slash at its end
    options: tuple[tuple[str, str], ...] = ()  # as the user gave them: may hold secrets

    @property
    def scheme(self) -> str:
        """ "local" for paths.

        Example: locate("s3a://bucket/x").scheme -> "s3"
        """
        return self.url.partition("://")[0] if "://" in self.url else LOCAL

    def __str__(self) -> str:
        """The URL without credentials or signature."""
        return "::".join(_without_secrets(link) for link in self.url.split("::"))

    def __repr__(self) -> str:
        return f"Location({str(self)!r}, options {sorted(name for name, _ in self.options)})"


def _without_secrets(link: str) -> str:
    """One URL of a chain, without user, password and query."""
    scheme, mark, rest = link.partition("://")
    if not mark:
        return link
    place, question, _ = rest.partition("?")
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{question and '?...'}"


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    path: str  # relative to the location
    size: int  # bytes
    mtime: int  # seconds since 1970, UTC; 0 where the store does not tell
    etag: str | None


class Store(Protocol):
    """Objects below a location, under '/'-separated paths relative to it. Safe to use from several threads.

    All errors of reading, writing and reaching it are OSErrors; a missing object is a FileNotFoundError.
    """

    def read(self, path: str) -> bytes: ...

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes start..end (end not included) of the object."""

    def write(self, path: str, content: bytes) -> None:
        """Puts the whole object in place at once: nobody ever sees a part of it."""

    def write_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        """As `write`, of content that memory need not hold: pieces of 5 MB or more, but for the last.

        Where the pieces end with an error there is no such object, or still the one there was.
        """

    def create(self, path: str, content: bytes) -> bool:
        """As `write`, unless there is such an object: True for exactly one of all who try.

        Where the reply to a request got lost and it was repeated, also the one who created it may hear False.
        """

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int | None:
        """Bytes, or None where there is no such object."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All objects below the folder `prefix`, at any depth, in no promised order, in little memory.

        Gives nothing where nothing lies below the prefix; FileNotFoundError where there is no such location.
        """

    def delete(self, path: str) -> None:
        """Afterwards there is no such object, whether there was one or not."""


def locate(url: str, options: Mapping[str, str] | None = None) -> Location:
    """A path or URL as the user typed it -> a location.

    Example: locate("photos/") -> Location("/home/me/photos");  locate("s3a://b/x/") -> Location("s3://b/x")
    """
    given = tuple(sorted((options or {}).items()))
    scheme, separator, rest = url.partition("://")
    if not url or (separator and not scheme):
        raise ValueError(f"location {url!r}, expected {_UNDERSTOOD}")
    if not separator or scheme == "file":
        if given:
            raise ValueError(
                f"options {[name for name, _ in given]} for the local path {url!r}, which takes none"
            )
        return Location(os.path.abspath(Path(rest if separator else url).expanduser()))
    if scheme in ("s3", "s3a"):
        from manifests.s3 import check_options

        check_options(dict(given))
        if not rest.strip("/"):
            raise ValueError(f"location {url!r} names no bucket, expected s3://BUCKET or s3://BUCKET/PREFIX")
        if "@" in rest.strip("/").partition("/")[0]:
            raise ValueError("credentials in an s3:// URL, expected them as options key and secret")
        return Location(f"s3://{rest.strip('/')}", given)
    if scheme.rpartition("::")[2] not in fsspec.available_protocols():
        raise ValueError(f"location {url!r} has the unknown scheme {scheme!r}, expected {_UNDERSTOOD}")
    return Location(url.rstrip("/"), given)


_UNDERSTOOD = (
    "a local path, file://, s3://, or for sources any scheme of fsspec (gs://, https://, zip://, ...)"
)


def connect(location: Location) -> Store:
    """Opens the location, with credentials as they are now."""
    # Imports inside: s3fs alone takes longer to import than a local command runs.
    match location.scheme:
        case "local":
            from manifests.local import LocalStore

            return LocalStore(location.url)
        case "s3":
            from manifests.s3_store import S3Store

            return S3Store(location)
        case _:
            from manifests.other import OtherStore

            return OtherStore(location)


def delta_uri(location: Location) -> str:
    """The location as deltalake takes it."""
    if location.scheme not in (LOCAL, S3):
        raise ValueError(f"archive at {location}: archives live on local disks or S3")
    return location.url


def delta_options(location: Location) -> dict[str, str]:
    """Storage options for deltalake, with credentials as they are now."""
    delta_uri(location)
    if location.scheme == LOCAL:
        return {}
    from manifests.s3 import delta_options_of, resolve

    return delta_options_of(resolve(location))
