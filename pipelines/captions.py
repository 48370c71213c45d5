"""A key and its pixels -> the caption that is kept with them."""

import json
from collections.abc import Callable, Sequence
from posixpath import splitext
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from manifests.storage import Location, connect
from pipelines.codec import Pixels
from pipelines.patience import Readable, read_beside

# What a plan's head says under `captions`; any other text is the setting of a captioner.
SOURCES = ("none", "sidecar", "table")
MOST_BYTES = 1_000_000  # of a sidecar; a larger one is no caption


class BadCaption(ValueError):
    """A caption is there and cannot be read; one line says why."""


class Captioner(Protocol):
    """Writes captions from pixels, on the worker; a loaded one is used by one thread at a time."""

    @property
    def batch(self) -> int:
        """How many pictures a call handles best."""

    def captions(self, pictures: Sequence[Pixels]) -> list[str]:
        """One for each picture, empty where there is nothing to say."""


# A captioner's setting, device ("cpu", "cuda:0") -> a loaded captioner; OSError where it cannot be loaded.
LoadCaptioner = Callable[[str, str], Captioner]


def no_captioner(captions: str, device: str) -> Captioner:
    """A `LoadCaptioner` for those who have none."""
    raise OSError(f"captions {captions!r}, expected one of {', '.join(SOURCES)}: there is no captioner here")


class Captions(Protocol):
    """Finds the caption that an image already has, on the worker. Used by several threads at a time."""

    def caption(self, key: str, planned: str | None, pixels_hwc: Pixels) -> str | None:
        """None where there is none; `planned` is what the plan says; `BadCaption` where it cannot be read."""


class PlannedCaptions:
    """What the plan says: nothing, or the column of a table."""

    def caption(self, key: str, planned: str | None, pixels_hwc: Pixels) -> str | None:
        return planned


class SidecarCaptions:
    """The text beside an image: `photo.txt`, else the member "caption" of `photo.json`."""

    def __init__(self, store: Readable) -> None:
        self._store = store

    def caption(self, key: str, planned: str | None, pixels_hwc: Pixels) -> str | None:
        for suffix, text_of in ((".txt", str), (".json", _member)):
            path = splitext(key)[0] + suffix
            content = read_beside(self._store, path, BadCaption)
            if content is None:
                continue
            if len(content) > MOST_BYTES:
                raise BadCaption(f"{path} has {len(content):,} bytes, the limit is {MOST_BYTES:,}")
            try:
                caption = text_of(content.decode("utf-8-sig")).strip()
                caption.encode()  # JSON can say half a character
                return caption or None
            except ValueError as error:  # UnicodeError and JSONDecodeError are such
                raise BadCaption(f"{path}: {error}") from error
        return None


def _member(text: str) -> str:
    match json.loads(text):
        case str(caption) | {"caption": str(caption)}:
            return caption
        case _:
            raise BadCaption('expected a text, or an object with a text under "caption"')


def open_captions(source_of_captions: str, source: Readable) -> Captions:
    """For one of SOURCES."""
    match source_of_captions:
        case "none" | "table":
            return PlannedCaptions()
        case "sidecar":
            return SidecarCaptions(source)
        case _:
            raise ValueError(f"captions {source_of_captions!r}, expected one of {', '.join(SOURCES)}")


def read_caption_table(location: Location) -> pa.Table:
    """Columns key and caption of a Parquet or CSV object; ValueError where it has none, or a key twice."""
    folder, _, name = location.url.rpartition("/")
    content = connect(Location(folder or "/", location.options)).read(name)
    try:
        if content[:4] == b"PAR1":
            with pq.ParquetFile(pa.BufferReader(content)) as file:
                table = file.read(["key", "caption"], use_threads=False)
        else:
            texts = pyarrow.csv.ConvertOptions(
                include_columns=["key", "caption"],
                column_types={"key": pa.string(), "caption": pa.string()},
                strings_can_be_null=True,
                null_values=[""],
            )
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            # A copy in Arrow's memory: its threads, which read ahead, would hold on to `content` (apache/arrow #34314).
            copied = pa.BufferOutputStream()
            copied.write(content)
            table = pyarrow.csv.read_csv(
                pa.BufferReader(copied.getvalue()), convert_options=texts, parse_options=parse
            )
        table = table.select(["key", "caption"]).cast(
            pa.schema([("key", pa.string()), ("caption", pa.string())])
        )
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(
            f"{location}: expected Parquet or CSV with columns key and caption: {error}"
        ) from error
    if len(table["key"].unique()) != len(table):
        raise ValueError(f"{location}: expected each key once")
    return table
