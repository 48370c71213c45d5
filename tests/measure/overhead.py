"""What one record costs beside its bitstream, caption and digest, by column; run by hand, and by test_overhead.py.

python -m tests.measure.overhead [--records 10000] [--bitstream-bytes 140]
"""

import argparse
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from manifests.part import Origin, table_of, to_parquet
from manifests.records import CodecSpec, Record
from manifests.storage import locate
from tests.archives import build
from tests.measure.generator import records

RUN = "20260131T120000-0123456789"
PAYLOAD = ("bitstream", "caption", "digest")


@dataclass(frozen=True)
class Overhead:
    """Bytes of one part of so many records."""

    records: int
    part_bytes: int
    bitstream_bytes: int  # bare
    columns: dict[str, int]  # compressed, page headers included; of bitstreams what is more than they
    footer_bytes: int

    @property
    def each(self) -> float:
        """Bytes a record beyond bitstream, caption and digest."""
        counted = [size for name, size in self.columns.items() if name not in ("caption", "digest")]
        return (sum(counted) + self.footer_bytes) / self.records

    @property
    def budget(self) -> float:
        """12 bytes, or 1 % of the mean bitstream where that is more."""
        return max(12.0, 0.01 * self.bitstream_bytes / self.records)


def overhead(found: Sequence[Record]) -> Overhead:
    """Of all of them in one part."""
    content = to_parquet(table_of(found, RUN), Origin(encode_seconds=1234.5, device="cpu"))
    metadata = pq.read_metadata(io.BytesIO(content))
    columns = dict.fromkeys(metadata.schema.names, 0)
    for group in range(metadata.num_row_groups):
        for index, name in enumerate(metadata.schema.names):
            columns[name] += metadata.row_group(group).column(index).total_compressed_size
    bare = sum(len(record.image.bitstream) for record in found if record.image is not None)
    footer_bytes = len(content) - sum(columns.values())
    columns["bitstream"] -= bare
    return Overhead(len(found), len(content), bare, columns, footer_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--bitstream-bytes", type=int, default=140)
    given = parser.parse_args()
    found = list(records(given.records, seed=1, mean_bitstream_bytes=given.bitstream_bytes))
    one = overhead(found)
    print(f"{one.records:,} records in one part of {one.part_bytes:,} bytes; bytes a record:")
    print(f"{one.bitstream_bytes / one.records:8.2f}  bitstream, bare")
    for name, size in one.columns.items():
        words = (
            " (its own, not counted below)"
            if name in PAYLOAD[1:]
            else ", framing"
            if name == "bitstream"
            else ""
        )
        print(f"{size / one.records:8.2f}  {name}{words}")
    print(f"{one.footer_bytes / one.records:8.2f}  footer")
    print(f"{one.each:8.2f}  beyond bitstream, caption and digest; the budget is {one.budget:.2f}")
    with tempfile.TemporaryDirectory(prefix="archiver-") as folder:
        archive = build(locate(str(Path(folder) / "archive")), found, 2000, spec=CodecSpec("synthetic", 1))
        sizes = {entry.path: entry.size for entry in archive.store.list()}
    for what, start in (("plan", "runs/"), ("log", "images/_delta_log/")):
        size = sum(size for path, size in sizes.items() if path.startswith(start))
        print(f"{size / one.records:8.2f}  {what}, in an archive of {len(archive.parts)} parts")


if __name__ == "__main__":
    main()
