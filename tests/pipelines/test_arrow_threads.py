"""No thread of Arrow's holds what is Python's: one that lets go of it while Python is ending aborts the process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.storage import locate
from tests.archives import build, encoded, small_pictures

# Arrow starts its threads when they are first needed: how many threads there are after each way to read.
SCRIPT = """
import json, os, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from manifests.part import metadata_of
from manifests.plan import batches_of, plan_of
from manifests.read import read_whole
from manifests.salvage import Source
from manifests.storage import locate
from pipelines.captions import read_caption_table

run, *files = sys.argv[1:]
part, plan = (Path(file).read_bytes() for file in files[:2])
ways = {
    "a part": lambda: read_whole(part),
    "a row group": lambda: Source(pa.py_buffer(part), metadata_of(part)).read(0, ["key", "bitstream"], True),
    "a plan": lambda: plan_of(run, plan).rows,
    "a plan by batches": lambda: list(batches_of(run, plan, ["key", "size"])),
    "captions": lambda: read_caption_table(locate(files[2])),
    "as pyarrow would": lambda: pq.ParquetFile(pa.BufferReader(part)).read(),
}
for name, read in ways.items():
    before = len(os.listdir("/proc/self/task"))
    found = read()
    print(json.dumps([name, len(found), len(os.listdir("/proc/self/task")) - before]))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted as Linux tells them")
def test_parquet_is_read_without_threads(tmp_path: Path) -> None:
    keys = [f"{place}.jpg" for place in range(5)]
    archive = build(locate(str(tmp_path / "archive")), encoded(small_pictures(5), keys))
    (run,), (part,) = archive.runs(), archive.parts
    captions = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"key": keys, "caption": keys}), captions)
    files = [
        tmp_path / "archive" / "images" / part,
        tmp_path / "archive" / "runs" / run / "plan.parquet",
        captions,
    ]
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, run, *map(str, files)], check=True, capture_output=True, text=True
    )
    *ours, (_, _, started) = map(json.loads, told.stdout.splitlines())
    assert {name: (rows, threads) for name, rows, threads in ours} == {
        "a part": (5, 0),
        "a row group": (5, 0),
        "a plan": (5, 0),
        "a plan by batches": (1, 0),
        "captions": (5, 0),
    }
    assert started > 0  # so that the test would notice
