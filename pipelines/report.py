"""An archive -> what it holds in numbers, what that costs, and whether it pays."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from manifests.archive import Archive
from manifests.query import TABLE, query
from manifests.read import read_origin
from pipelines.costs import CostLine, Holdings, Objects, cost_lines, machine_price
from pipelines.prices import SMALL_BYTES, Prices
from pipelines.select import refuse
from pipelines.verdict import Verdict, verdict

_KINDS = {"runs": "plans", "specs": "specs", "weights": "weights"}  # folder -> kind, beside images/
_TOTALS = f"""
SELECT failure IS NOT NULL AS failed,
  count(*) AS records,
  sum(source_bytes) AS source_bytes,
  sum(CASE WHEN source_bytes < {SMALL_BYTES} THEN 1 ELSE 0 END) AS small,
  sum(CASE WHEN source_bytes < {SMALL_BYTES} THEN source_bytes ELSE 0 END) AS small_bytes,
  sum(bitstream_bytes) AS bitstream_bytes,
  sum(octet_length(caption)) AS caption_bytes,
  sum(CAST(width AS BIGINT) * height) AS pixels
FROM {TABLE} GROUP BY failure IS NOT NULL
"""


@dataclass(frozen=True)
class Report:
    """What an archive holds; byte counts are of stored objects, of all kinds, left-over ones included."""

    archive: str
    version: int  # of the table
    images: int
    failures: int
    source_bytes: int  # of the files that the images were made of
    failed_source_bytes: int  # of those that failed, which have to stay
    archive_bytes: int  # every object
    bitstream_bytes: int
    caption_bytes: int  # UTF-8, before compression
    overhead_bytes: int  # archive less bitstreams and captions; negative where captions compress by more
    pixels: int
    bpp_all_in: float  # bits of the whole archive for a pixel; 0 without images
    ratio: float  # source bytes for one of the archive; 0 without images
    objects: tuple[Objects, ...]
    encode_seconds: Mapping[str, float]  # device -> seconds of its workers
    decode_seconds: float | None  # of one image, as it was told
    lines: tuple[CostLine, ...]
    verdict: Verdict


def report(
    archive: Archive,
    prices: Prices,
    restored_per_year: float = 0.01,
    source_class: str = "STANDARD",
    archive_class: str = "STANDARD",
    gpu: str = "L4",
    years: float = 5.0,
    decode_seconds: float | None = None,
    decode_machine: str = "cpu",
) -> Report:
    """From one scan of the table's columns and one listing; no payload is read.

    Seconds on a device other than "cpu" are priced as those of `gpu`, unless the device names a machine of
    the prices. `decode_seconds`: of one image, where it was measured, on `decode_machine`. ValueError for a class or
    machine that the prices lack, and for a table that is too damaged to be counted.
    """
    for name, value in (("years", years), ("decode seconds", decode_seconds or 0.0)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} {value!r}, expected a number from 0 up")
    images, failed = _totals(archive)
    objects = _objects(archive)
    seconds = _encode_seconds(archive)
    holdings = Holdings(
        images=images["records"],
        source=_originals(images, failed),
        failed=_originals(failed),
        archive=objects,
        encode_seconds=_by_machine(seconds, prices, gpu) or None,
        decode_seconds=decode_seconds,
        restored_bytes=None,
    )
    machine_price(prices, gpu)  # also where nothing ran on one
    lines = cost_lines(holdings, prices, restored_per_year, source_class, archive_class, decode_machine)
    archive_bytes = sum(kind.size_bytes for kind in objects)
    pixels, source_bytes = images["pixels"], images["source_bytes"]
    return Report(
        archive=str(archive.location),
        version=archive.version,
        images=images["records"],
        failures=failed["records"],
        source_bytes=source_bytes,
        failed_source_bytes=failed["source_bytes"],
        archive_bytes=archive_bytes,
        bitstream_bytes=images["bitstream_bytes"],
        caption_bytes=images["caption_bytes"],
        overhead_bytes=archive_bytes - images["bitstream_bytes"] - images["caption_bytes"],
        pixels=pixels,
        bpp_all_in=8 * archive_bytes / pixels if pixels else 0.0,
        ratio=source_bytes / archive_bytes if pixels else 0.0,
        objects=objects,
        encode_seconds=seconds,
        decode_seconds=decode_seconds,
        lines=tuple(lines),
        verdict=verdict(lines, holdings, years),
    )


def _totals(archive: Archive) -> tuple[Counter[str], Counter[str]]:
    """Sums over images, and over failures."""
    images: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for row in query(archive, _TOTALS, refuse).to_pylist():
        (failed if row.pop("failed") else images).update({name: int(sum_ or 0) for name, sum_ in row.items()})
    return images, failed


def _originals(*totals: Counter[str]) -> Objects:
    def total(name: str) -> int:
        return sum(counted[name] for counted in totals)

    return Objects("originals", total("records"), total("source_bytes"), total("small"), total("small_bytes"))


def _objects(archive: Archive) -> tuple[Objects, ...]:
    """Every object that lies there, by kind."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    for entry in archive.store.list():
        top, _, rest = entry.path.partition("/")
        in_table = "log" if rest.startswith("_delta_log/") else "parts"
        sizes[in_table if top == "images" else _KINDS.get(top, "other")].append(entry.size)
    order = ("parts", "log", "plans", "specs", "weights", "other")
    return tuple(Objects.of(kind, sizes[kind]) for kind in order if kind in sizes)


def _encode_seconds(archive: Archive) -> dict[str, float]:
    """As runs tell in their summaries; of unfinished ones, as their parts do."""
    seconds: Counter[str] = Counter()
    for run, path in archive.runs().items():
        told = None if path is None else _told(archive, path)
        if told is not None:
            seconds.update(told)
            continue
        for part in archive.parts.values():
            origin = read_origin(archive.store, part) if part.run == run else None
            if origin is not None:
                seconds.update({origin.device: origin.encode_seconds})
    return dict(seconds)


def _told(archive: Archive, path: str) -> Mapping[str, float] | None:
    try:
        return archive.summary(path).encode_seconds
    except ValueError:  # damaged: the parts know it too
        return None


def _by_machine(seconds: Mapping[str, float], prices: Prices, gpu: str) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    for device, count in seconds.items():
        found[_machine(device, prices, gpu)] += count
    return dict(found)


def _machine(device: str, prices: Prices, gpu: str) -> str:
    """Example: "cpu" -> "cpu"; "cuda" -> `gpu`; "NVIDIA H100 80GB" -> "H100"."""
    return next((name for name in prices.machines if name.lower() in device.lower()), gpu)
