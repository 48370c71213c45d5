import hashlib
import io
import struct
import zlib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.part import (
    BLOCK_BYTES,
    ROW_GROUP_BITSTREAM_BYTES,
    ROW_GROUP_RECORDS,
    ROW_GROUP_TEXT_BYTES,
    Damaged,
    Origin,
    blocks_of,
    check_of,
    describe,
    parse_path,
    records_of,
    short_hash,
    table_of,
    to_parquet,
)
from manifests.read import origin_of, read_whole
from manifests.records import EncodedImage, Record
from tests.measure.generator import records

RUN = "20260131T120000-0123456789"
ORIGIN = Origin(12.5, "cpu")
IMAGE = Record("a.png", 100, 1_700_000_000, "spec", EncodedImage(b"\x01\x02", "a cat", 3, 5), notes="a note")
FAILURE = Record("b.png", 0, 0, "spec", None, "not an image: 7 bytes", digest=bytes(range(16)))


def test_records_come_back_from_a_part_in_the_order_of_their_bytes() -> None:
    written = [*records(3000, seed=1), replace(IMAGE, key="é.png"), replace(IMAGE, key="z.png"), FAILURE]
    table = read_whole(to_parquet(table_of(written, RUN), ORIGIN))
    assert table is not None
    assert records_of(table) == sorted(written, key=lambda record: record.key.encode())
    assert table["run"].unique().to_pylist() == [RUN]


def test_a_part_tells_how_it_came_to_be() -> None:
    assert origin_of(to_parquet(table_of([IMAGE], RUN), ORIGIN)) == ORIGIN


def test_a_part_without_records_is_one_too() -> None:
    content = to_parquet(table_of([], RUN), ORIGIN)
    table = read_whole(content)
    assert table is not None
    assert len(table) == 0
    part = describe(RUN, 0, 5, content, table)
    assert (part.records, part.min_key, part.max_key) == (0, None, None)
    assert not part.spans("", "\U0010ffff")


def test_equal_records_give_equal_bytes() -> None:
    written = list(records(500, seed=2))
    assert to_parquet(table_of(written, RUN), ORIGIN) == to_parquet(table_of(written[::-1], RUN), ORIGIN)


def test_the_check_is_the_hash_that_the_format_document_names() -> None:
    body = b"a.png\0spec\0" + struct.pack("<II", 3, 5) + b"\x01\x02"
    (expected,) = struct.unpack("<H", hashlib.blake2b(body, digest_size=2).digest())
    assert check_of(IMAGE) == expected
    (expected,) = struct.unpack(
        "<H", hashlib.blake2b(b"b.png\0spec\0not an image: 7 bytes", digest_size=2).digest()
    )
    assert check_of(FAILURE) == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("key", "c.png"),
        ("spec", "other"),
        ("height", 4),
        ("width", 4),
        ("bitstream", b"\x01\x03"),
        ("bitstream", None),
        ("height", None),
        ("failure", "why"),
        ("check", 1),
    ],
)
def test_a_row_that_was_tampered_with_is_damaged(column: str, value: object) -> None:
    table = table_of([IMAGE], RUN)
    place = table.column_names.index(column)
    tampered = table.set_column(
        place, table.schema.field(column), pa.array([value], table.schema.field(column).type)
    )
    (found,) = records_of(tampered)
    assert isinstance(found, Damaged)
    assert found.key == ("c.png" if column == "key" else "a.png")


def test_a_record_is_an_image_or_a_failure() -> None:
    with pytest.raises(ValueError, match=r"'a\.png'"):
        replace(IMAGE, failure="why")
    with pytest.raises(ValueError, match=r"'a\.png'"):
        replace(IMAGE, image=None)


def test_the_layout_is_the_one_that_the_format_document_promises() -> None:
    written = list(records(12_000, seed=3))
    content = to_parquet(table_of(written, RUN), ORIGIN)
    metadata = pq.read_metadata(io.BytesIO(content))
    assert metadata.num_row_groups >= 3
    by_name = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        assert group.num_rows <= ROW_GROUP_RECORDS
        columns = [group.column(place) for place in range(group.num_columns)]
        by_name = {column.path_in_schema: column for column in columns}
        assert by_name["caption"].total_uncompressed_size <= ROW_GROUP_TEXT_BYTES
        assert by_name["key"].statistics.has_min_max
        assert by_name["width"].statistics is None
    encodings = {name: set(column.encodings) - {"RLE"} for name, column in by_name.items()}
    assert encodings["key"] == {"DELTA_BYTE_ARRAY"}
    assert encodings["bitstream"] == encodings["caption"] == {"DELTA_LENGTH_BYTE_ARRAY"}
    assert encodings["mtime"] == encodings["check"] == {"BYTE_STREAM_SPLIT"}
    assert "RLE_DICTIONARY" in encodings["width"]
    compressed = {name for name, column in by_name.items() if column.compression != "UNCOMPRESSED"}
    assert {"bitstream", "digest"}.isdisjoint(compressed)
    assert {"key", "caption", "mtime", "spec", "check"} <= compressed
    keys = metadata.row_group(0).column(0)
    damaged = flip(content, keys.data_page_offset + keys.total_compressed_size - 10)
    with (
        pytest.raises(OSError, match="CRC"),
        pq.ParquetFile(io.BytesIO(damaged), page_checksum_verification=True) as file,
    ):
        file.read()


def test_bitstreams_end_their_chunk_and_each_block_of_them_has_a_crc() -> None:
    written = list(records(3000, seed=3))
    content = to_parquet(table_of(written, RUN), ORIGIN)
    metadata = pq.read_metadata(io.BytesIO(content))
    bitstreams = b"".join(record.image.bitstream for record in written if record.image is not None)
    column = metadata.row_group(0).column(metadata.num_columns - 1)
    assert content[: column.data_page_offset + column.total_compressed_size].endswith(bitstreams)
    blocks = [bitstreams[start : start + BLOCK_BYTES] for start in range(0, len(bitstreams), BLOCK_BYTES)]
    assert blocks_of(metadata, 0) == [zlib.crc32(block) for block in blocks]


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_large_bitstream_has_a_row_group_of_its_own() -> None:
    large = EncodedImage(bytes(ROW_GROUP_BITSTREAM_BYTES + 1), None, 1, 1)
    written = [replace(IMAGE, key=str(n), image=large if n == 1 else IMAGE.image) for n in range(4)]
    metadata = pq.read_metadata(io.BytesIO(to_parquet(table_of(written, RUN), ORIGIN)))
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [1, 1, 2]


def test_a_part_is_named_by_its_run_its_rows_and_its_hash() -> None:
    table = table_of([IMAGE, FAILURE], RUN)
    content = to_parquet(table, ORIGIN)
    part = describe(RUN, 7, 8, content, table)
    assert part.path == f"{RUN}/000000007-000000008-{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    assert parse_path(part.path) == (RUN, 7, 8, short_hash(content))
    assert (part.size, part.records, part.min_key, part.max_key) == (len(content), 2, "a.png", "b.png")
    assert part.spans("b", "c")
    assert not part.spans("b.pnh", "c")


@pytest.mark.parametrize(
    "path",
    ["x.parquet", f"{RUN}/1-2.parquet", f"{RUN}/1-2-3.csv", f"{RUN}/a-b-c.parquet", "a/b/1-2-3.parquet"],
)
def test_other_paths_are_no_parts(path: str) -> None:
    with pytest.raises(ValueError, match="is no part"):
        parse_path(path)
