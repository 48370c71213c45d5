"""Records <-> Parquet parts."""

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.records import EncodedImage, Record

FORMAT = 1
# A row group costs 2,400 bytes beside its records, and one row is restored from its group's columns and one block of
# its bitstreams: few large groups are small and still read in few bytes.
ROW_GROUP_RECORDS = 5_000
ROW_GROUP_TEXT_BYTES = 400_000  # of keys and captions
ROW_GROUP_BITSTREAM_BYTES = 16_000_000
BLOCK_BYTES = 65_536  # of bitstreams, one after the other: each block has a CRC-32 in the footer

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("source_bytes", pa.int64(), nullable=False),
        pa.field("mtime", pa.int64(), nullable=False),
        pa.field("spec", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("bitstream_bytes", pa.int32()),
        pa.field("check", pa.int32(), nullable=False),
        pa.field("failure", pa.string()),
        pa.field("notes", pa.string()),
        pa.field("digest", pa.binary()),
        pa.field("bitstream", pa.binary()),
    ]
)
_SEAL, _NO_SEAL = b'"footer": "', b"00000000"
_DICTIONARY = ["width", "height", "spec", "run", "failure", "notes"]
_ENCODING = {
    "key": "DELTA_BYTE_ARRAY",
    "caption": "DELTA_LENGTH_BYTE_ARRAY",
    "source_bytes": "BYTE_STREAM_SPLIT",
    "mtime": "BYTE_STREAM_SPLIT",
    "bitstream_bytes": "BYTE_STREAM_SPLIT",
    "check": "BYTE_STREAM_SPLIT",
    "digest": "DELTA_LENGTH_BYTE_ARRAY",
    "bitstream": "DELTA_LENGTH_BYTE_ARRAY",
}
# Random bytes do not shrink: compressing them only adds frames.
_COMPRESSION = {name: "NONE" if name in ("digest", "bitstream") else "ZSTD" for name in SCHEMA.names}
# Against 1, 6 saves 0.4 bytes a record and 1.2 of a caption, for some 50 microseconds.
_LEVEL = {name: 6 for name, codec in _COMPRESSION.items() if codec == "ZSTD"}


@dataclass(frozen=True)
class Origin:
    """How a part came to be; kept in its footer."""

    encode_seconds: float  # of one worker
    device: str  # "cpu", "cuda"

    @staticmethod
    def of(metadata: pq.FileMetaData) -> "Origin":
        """What `to_parquet` was given, from a part's footer."""
        found = _told(metadata)
        match found:
            case {"format": 1, "encode_seconds": int() | float() as seconds, "device": str() as device}:
                return Origin(float(seconds), device)
        raise ValueError(f"part of {str(found)[:200]}, this program reads format {FORMAT}")


def _told(metadata: pq.FileMetaData) -> object:
    return json.loads((metadata.metadata or {}).get(b"archiver", b"{}"))


def blocks_of(metadata: pq.FileMetaData, group: int) -> list[int] | None:
    """The CRC-32 of each block of a row group's bitstreams; None where the part is older than they."""
    match _told(metadata):
        case {"blocks": [*texts]} if len(texts) == metadata.num_row_groups:
            return [value for (value,) in struct.iter_unpack(">I", bytes.fromhex(str(texts[group])))]
    return None


def check_of(record: Record) -> int:
    """The record's 16-bit check (FORMAT.md, Check): what pixels, size and name depend on."""
    head = record.key.encode() + b"\0" + record.spec.encode() + b"\0"
    if record.image is None:
        body = (record.failure or "").encode()
    else:
        body = struct.pack("<II", record.image.height, record.image.width) + record.image.bitstream
    return int.from_bytes(hashlib.blake2b(head + body, digest_size=2).digest(), "little")


def table_of(records: Iterable[Record], run: str) -> pa.Table:
    """Inverse of `records_of`, in ascending order of the keys' UTF-8 bytes."""
    ordered = sorted(records, key=lambda record: record.key.encode())
    images = [record.image for record in ordered]
    columns = {
        "key": [record.key for record in ordered],
        "caption": [image.caption if image else None for image in images],
        "width": [image.width if image else None for image in images],
        "height": [image.height if image else None for image in images],
        "source_bytes": [record.source_bytes for record in ordered],
        "mtime": [record.mtime for record in ordered],
        "spec": [record.spec for record in ordered],
        "run": [run] * len(ordered),
        "bitstream_bytes": [len(image.bitstream) if image else None for image in images],
        "check": [check_of(record) for record in ordered],
        "failure": [record.failure for record in ordered],
        "notes": [record.notes for record in ordered],
        "digest": [record.digest for record in ordered],
        "bitstream": [image.bitstream if image else None for image in images],
    }
    return pa.Table.from_pydict(columns, schema=SCHEMA)


@dataclass(frozen=True)
class Damaged:
    """A record, or its caption, that was promised and cannot be had intact."""

    key: str
    what: str  # "record", "caption", "footer" or "part missing"


def records_of(table: pa.Table) -> list[Record | Damaged]:
    """Inverse of `table_of`; a row that its own check contradicts comes back as `Damaged`."""
    return [_record_of(row) for row in table.to_pylist()]


def _record_of(row: dict[str, object]) -> Record | Damaged:
    try:
        image = None
        if row["failure"] is None:
            image = EncodedImage(row["bitstream"], row["caption"], row["height"], row["width"])  # type: ignore[arg-type]
        names = ("key", "source_bytes", "mtime", "spec")
        plain = {name: row[name] for name in names}
        extra = {name: row[name] for name in ("failure", "notes", "digest")}
        record = Record(image=image, **plain, **extra)  # type: ignore[arg-type]
        intact = check_of(record) == row["check"] and _length(record) == row["bitstream_bytes"]
    except (TypeError, ValueError, AttributeError, struct.error):
        intact = False  # damage can leave a null where there must be none
    return record if intact else Damaged(str(row["key"]), "record")


def _length(record: Record) -> int | None:
    return None if record.image is None else len(record.image.bitstream)


def to_parquet(table: pa.Table, origin: Origin) -> bytes:
    """The bytes of a part; `table` is ordered by key."""
    sink, groups = io.BytesIO(), _row_groups(table)
    told = {
        "format": FORMAT,
        "encode_seconds": origin.encode_seconds,
        "device": origin.device,
        "blocks": [_blocks(group) for group in groups],
        "footer": _NO_SEAL.decode(),  # the last: `_sealed` replaces it
    }
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression=_COMPRESSION,
        compression_level=_LEVEL,
        use_dictionary=_DICTIONARY,
        column_encoding=_ENCODING,
        write_statistics=["key"],
        write_page_checksum=True,
        store_schema=False,
        version="2.6",
        data_page_size=2**30,  # one page a chunk: its bitstreams lie one after the other
    ) as writer:
        writer.add_key_value_metadata({"archiver": json.dumps(told)})
        for group in groups:
            writer.write_table(group, row_group_size=len(group) or 1)
    return _sealed(sink.getvalue())


def _blocks(group: pa.Table) -> str:
    """Eight hex digits a block."""
    bitstreams = b"".join(value for value in group["bitstream"].to_pylist() if value is not None)
    starts = range(0, len(bitstreams), BLOCK_BYTES)
    return "".join(f"{zlib.crc32(bitstreams[start : start + BLOCK_BYTES]):08x}" for start in starts)


def _sealed(content: bytes) -> bytes:
    """The part with the CRC-32 of its footer in its footer, computed while that is eight zeros.

    Parquet has none, and pyarrow aborts the process over some footers with a flipped bit.
    """
    place = content.rindex(_SEAL) + len(_SEAL)
    return content[:place] + b"%08x" % zlib.crc32(_footer(content)) + content[place + len(_NO_SEAL) :]


def metadata_of(tail: bytes) -> pq.FileMetaData:
    """The metadata of a part, from last bytes that hold the footer; ValueError where the footer is damaged."""
    footer = _footer(tail)
    place = footer.rfind(_SEAL) + len(_SEAL)
    end = place + len(_NO_SEAL)
    if footer[place:end] != b"%08x" % zlib.crc32(footer[:place] + _NO_SEAL + footer[end:]):
        raise ValueError("the footer is damaged: its CRC-32 is wrong")
    return pq.read_metadata(io.BytesIO(b"PAR1" + footer))


def _footer(tail: bytes) -> bytes:
    """From its first byte to the end of the file."""
    size = int.from_bytes(tail[-8:-4], "little") + 8
    if not 8 < size <= len(tail):
        raise ValueError(f"a footer of {size} bytes in {len(tail)}")
    return tail[-size:]


def _row_groups(table: pa.Table) -> list[pa.Table]:
    """Cut at ROW_GROUP_RECORDS, _TEXT_BYTES and _BITSTREAM_BYTES, whichever comes first; an empty table is one."""
    sizes = [pc.fill_null(pc.binary_length(table[name]), 0) for name in ("key", "caption", "bitstream")]
    texts, bitstreams = pc.add(sizes[0], sizes[1]).to_pylist(), sizes[2].to_pylist()
    cuts, text, held = [0], 0, 0
    for row, (more_text, more) in enumerate(zip(texts, bitstreams, strict=True)):
        full = text + more_text > ROW_GROUP_TEXT_BYTES or held + more > ROW_GROUP_BITSTREAM_BYTES
        if row > cuts[-1] and (full or row - cuts[-1] >= ROW_GROUP_RECORDS):
            cuts.append(row)
            text, held = 0, 0
        text, held = text + more_text, held + more
    cuts.append(len(table))
    return [table.slice(first, end - first) for first, end in pairwise(cuts)]


@dataclass(frozen=True)
class Part:
    """A part as its name and the log describe it, without its records."""

    run: str
    first: int  # row of the run's plan
    last: int  # included
    hash: str  # first 16 hex digits of the sha256 of its bytes
    size: int  # bytes
    records: int
    min_key: str | None  # None where there are no records
    max_key: str | None

    @property
    def path(self) -> str:
        """Below `images/`."""
        return f"{self.run}/{self.first:09d}-{self.last:09d}-{self.hash}.parquet"

    def spans(self, low: str, high: str) -> bool:
        """Whether any key from low to high (included) may lie in it."""
        return (
            self.min_key is not None
            and self.max_key is not None
            and self.min_key <= high
            and low <= self.max_key
        )


def parse_path(path: str) -> tuple[str, int, int, str]:
    """Run, first, last and hash of a part's path below `images/`; ValueError for any other path."""
    try:
        run, name = path.split("/")
        first, last, rest = name.split("-")
        hash_, suffix = rest.split(".")
        if suffix != "parquet":
            raise ValueError
        return run, int(first), int(last), hash_
    except ValueError:
        raise ValueError(f"{path!r} is no part: expected <run>/<first>-<last>-<hash>.parquet") from None


def describe(run: str, first: int, last: int, content: bytes, table: pa.Table) -> Part:
    """The part that `content`, made of `table`, is."""
    keys: Sequence[str] = [table["key"][0].as_py(), table["key"][-1].as_py()] if len(table) else []
    lowest, highest = (keys[0], keys[1]) if keys else (None, None)
    return Part(run, first, last, short_hash(content), len(content), len(table), lowest, highest)


def short_hash(content: bytes) -> str:
    """First 16 hex digits of the sha256."""
    return hashlib.sha256(content).hexdigest()[:16]
