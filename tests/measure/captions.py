"""What a caption costs: in a Parquet part, and alone. Run by hand, on a file of captions, one a line.

python -m tests.measure.captions CAPTIONS [--records 10000] [--bitstream-bytes 140]

Lines are shuffled, since neighbours may tell of one picture. In a part: what it is larger than the part of the same
records without captions. Alone: some of every tenth line, which the shipped table has not seen.
"""

import argparse
import random
import statistics
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from archiver.codecs.caption_text import encode_caption
from archiver.single_image import caption_table
from archiver.training.caption_table import split
from manifests.part import Origin, table_of, to_parquet
from manifests.records import Record
from tests.measure.generator import records

RUN = "20260131T120000-0123456789"
SHARDS = (100, 500, 2000)  # records, beside all in one
ALONE = 500  # captions


def in_parts(captions: Sequence[str], shard_records: int, mean_bitstream_bytes: int) -> float:
    """Bytes a caption, of parts of so many records."""
    bare = list(records(len(captions), 1, mean_bitstream_bytes, captions=False))
    captioned = [
        replace(record, image=replace(record.image, caption=caption)) if record.image else record
        for record, caption in zip(bare, captions, strict=True)
    ]
    added = sum(
        _part_bytes(captioned[first : first + shard_records])
        - _part_bytes(bare[first : first + shard_records])
        for first in range(0, len(bare), shard_records)
    )
    return added / sum(record.image is not None for record in bare)  # a few have failed


def _part_bytes(found: Sequence[Record]) -> int:
    return len(to_parquet(table_of(list(found), RUN), Origin(encode_seconds=1234.5, device="cpu")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--bitstream-bytes", type=int, default=140)
    given = parser.parse_args()
    lines = given.captions.read_text("utf-8").splitlines()
    captions = random.Random(1).sample(lines, min(given.records, len(lines)))
    print(f"{len(captions):,} captions of {given.captions.name}; bytes a caption:")
    print(f"{statistics.mean(len(caption.encode()) for caption in captions):8.2f}  UTF-8, bare")
    for shard_records in sorted({*SHARDS, len(captions)}):
        each = in_parts(captions, shard_records, given.bitstream_bytes)
        print(f"{each:8.2f}  in parts of {shard_records:,} records")
    _, held_out = split([line for line in lines if line])
    table, alone = caption_table(), random.Random(2).sample(held_out, min(ALONE, len(held_out)))
    print(f"{len(alone):,} held-out captions, each alone:")
    for name, sizes in (
        ("UTF-8, bare", [len(caption.encode()) for caption in alone]),
        ("zlib", [len(zlib.compress(caption.encode(), 9)) for caption in alone]),
        ("coded as an exported image carries it", [len(encode_caption(caption, table)) for caption in alone]),
    ):
        print(f"{statistics.mean(sizes):8.2f}  {name}")


if __name__ == "__main__":
    main()
