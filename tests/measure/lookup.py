"""How long a million-record archive takes to open, to find one key, and to search all captions; run by hand.

    python -m tests.measure.lookup [--records 1000000]

Targets: one key in 50 ms once the archive is open, a caption and width query in 1 s, a report in a second or two.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from manifests.archive import Archive
from manifests.records import CodecSpec
from manifests.storage import locate
from pipelines.prices import load_prices
from pipelines.reading import Search, read
from pipelines.report import report
from pipelines.select import open_archive, select
from tests.archives import build
from tests.measure.generator import records

QUERY = "caption LIKE '%dog%' AND width > 5000"
POINTS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    with tempfile.TemporaryDirectory(prefix="archiver-") as folder:
        measure(Path(folder), parser.parse_args().records)


def measure(folder: Path, count: int) -> None:
    location = locate(str(folder / "archive"))
    build(location, records(count, seed=1), shard_records=2000, spec=CodecSpec("synthetic", 1))
    opening = [_seconds(lambda: open_archive(location).parts) for _ in range(5)]
    archive = open_archive(location)
    print(
        f"{count:,} records in {len(archive.parts):,} parts, {sum(p.size for p in archive.parts.values()):,} bytes"
    )
    _show("open the archive", opening)
    keys = random.Random(2).sample([part.min_key or "" for part in archive.parts.values()], POINTS)
    _show("one key: its row, by SQL", [_seconds(partial(select, archive, keys=[key])) for key in keys])
    _show("one key: its bitstream", [_seconds(partial(_read, archive, key)) for key in keys])
    _show(QUERY, [_seconds(lambda: select(archive, QUERY)) for _ in range(5)])
    _show("report", [_seconds(lambda: report(archive, load_prices())) for _ in range(3)])


def _read(archive: Archive, key: str) -> None:
    readings, _ = Search(archive.parts.values(), {key: None}).begin()
    (found,) = [record for reading in readings for record in read(archive.store, reading).records]
    assert found.key == key


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _show(what: str, seconds: list[float]) -> None:
    print(
        f"{1000 * statistics.median(seconds):8.1f} ms  {what} (slowest of {len(seconds)}: {1000 * max(seconds):.1f})"
    )


if __name__ == "__main__":
    main()
