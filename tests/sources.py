"""Folders and buckets of small images, good and bad, and what an archive made of them."""

import io
from collections.abc import Iterable, Mapping

import pyarrow as pa
from deltalake import QueryBuilder
from PIL import Image

from manifests.archive import Archive
from manifests.part import Damaged
from manifests.read import read_records
from manifests.records import Record
from manifests.storage import Location, connect
from tests.toy_codec import CLEAN


def png(corner: tuple[int, int, int] = CLEAN, number: int = 0) -> bytes:
    """8x6 pixels, that differ by `number`; the toy codec looks at the corner."""
    image = Image.new("RGB", (8, 6), (number % 256, number // 256 % 256, 90))
    image.putpixel((0, 0), corner)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def fill(source: Location, count: int, others: Mapping[str, bytes] | None = None) -> list[str]:
    """Writes `count` images under keys in three folders, and the others; all keys, in order."""
    contents = {f"{'abc'[n % 3]}/image{n:04d}.png": png(number=n) for n in range(count)} | dict(others or {})
    store = connect(source)
    for key, content in contents.items():
        store.write(key, content)
    return sorted(contents)


def rows(archive: Location) -> pa.Table:
    """key, failure, caption, run and bitstream_bytes of all rows, by key."""
    query = "select key, failure, caption, run, bitstream_bytes from images order by key, run"
    found = QueryBuilder().register("images", Archive(archive).table).execute(query).read_all()
    texts = [(name, pa.string()) for name in ("key", "failure", "caption", "run")]
    return pa.table(found).cast(
        pa.schema([*texts, ("bitstream_bytes", pa.int32())])
    )  # DataFusion gives views


def failures(archive: Location) -> dict[str, str]:
    """Key -> why."""
    return {row["key"]: row["failure"] for row in rows(archive).to_pylist() if row["failure"] is not None}


def check_complete(archive: Location, keys: Iterable[str]) -> None:
    """Each key is there exactly once, intact; every run is finished; nothing else is in the table."""
    found = Archive(archive)
    assert rows(archive)["key"].to_pylist() == sorted(keys)
    records = [r for part in found.parts.values() for r in read_records(found.store, part, None)]
    assert not [record for record in records if isinstance(record, Damaged)]
    intact = [record for record in records if isinstance(record, Record)]
    assert sorted(record.key for record in intact) == sorted(keys)
    assert all(summary is not None for summary in found.runs().values())
