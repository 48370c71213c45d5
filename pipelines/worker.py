"""One shard of a plan -> one part: images are read and decoded by threads while others are encoded."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from manifests.archive import Archive
from manifests.part import Origin, Part, describe, table_of, to_parquet
from manifests.plan import Shard
from manifests.records import CodecSpec, Record
from manifests.storage import Location, Store, connect
from pipelines import captions, regions
from pipelines.batches import NOT_ENCODABLE, Loaded, caption_batch, encode_batch, label_batch, one_line
from pipelines.captions import BadCaption, Captioner, Captions, LoadCaptioner, open_captions
from pipelines.codec import LoadCodec, Picture
from pipelines.encode_job import EncodeJob
from pipelines.images import SourceImage, UnreadableImage, read_image
from pipelines.patience import Patient
from pipelines.regions import BadRegions, Finder, LoadFinder, Regions, open_regions
from pipelines.spent import Spent
from pipelines.weights import default_cache, fetch_weights

# The stable words that a failure begins with, beside those of images.py and batches.py; after them ": detail".
MISSING = "missing at the source"
UNREADABLE = "cannot be read"
TOO_MANY_BYTES = "file too large"
BAD_REGIONS = "regions unusable"
CRASHES = "crashes the worker"

READERS, READ_AHEAD = (
    8,
    16,
)  # threads that wait for the store, and source files that they are ahead of the decoders
READ_AHEAD_BYTES = 256_000_000
DECODERS, DECODED_AHEAD = 2, 2  # decoded images wait for the codec: each may have a gigabyte
MOST_SOURCE_BYTES = 1_000_000_000

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class PlannedImage:
    """A row of the plan."""

    row: int
    key: str
    size: int  # bytes
    mtime: int
    caption: str | None
    boxes: str | None = None  # see pipelines/regions.py


def planned_images(rows: pa.Table, first: int) -> Iterator[PlannedImage]:
    """Rows of a plan, the first of them with that number."""
    names = [name for name in ("key", "size", "mtime", "caption", "boxes") if name in rows.column_names]
    columns = [column.to_pylist() for column in rows.select(names)]
    for row, values in enumerate(zip(*columns, strict=True), first):
        yield PlannedImage(row, *values)


@dataclass(frozen=True)
class EncodeTask:
    """Rows first..last of a plan, and those of their images that the archive lacks: a `Job`."""

    shard: Shard
    images: tuple[PlannedImage, ...]
    spec: str  # its id
    captions: str  # see pipelines/captions.py
    digest: bool
    keep: str = "none"  # see pipelines/regions.py

    def __len__(self) -> int:
        return len(self.images)

    def halves(self) -> tuple["EncodeTask", "EncodeTask"]:
        middle = len(self.images) // 2
        cut = self.images[middle].row
        first, last = replace(self.shard, last=cut - 1), replace(self.shard, first=cut)
        return replace(self, shard=first, images=self.images[:middle]), replace(
            self, shard=last, images=self.images[middle:]
        )


@dataclass(frozen=True)
class ShardResult:
    """All that a worker tells the driver: the part lies in the archive, and is not committed yet."""

    part: Part
    images: int
    failures: int
    pixels: int
    source_bytes: int  # of the images; failures keep theirs at the source
    bitstream_bytes: int
    origin: Origin


@dataclass(frozen=True)
class EncodeSetup:
    """What a worker needs to start; picklable."""

    source: Location
    archive: Location
    spec: CodecSpec
    weights: Mapping[str, Path]  # sha256 -> file on the driver's machine
    weights_cache: Path  # where other machines keep what they fetch from the archive
    load_codec: LoadCodec
    load_captioner: LoadCaptioner
    load_finder: LoadFinder


class Encoder:
    """A loaded codec, and the way to its source and archive: `EncodeTask` -> `ShardResult`."""

    def __init__(self, setup: EncodeSetup, device: str) -> None:
        self._setup = setup
        self._device = device.partition(":")[0]
        self._codec = setup.load_codec(setup.spec, _weights_here(setup), device)
        self._captioner = Loaded(setup.load_captioner, device, captions.SOURCES)
        self._finder = Loaded(setup.load_finder, device, regions.SOURCES)

    def __call__(self, task: EncodeTask) -> ShardResult:
        spent = Spent(self._device)
        records = list(self.records(task))
        origin = Origin(spent.seconds(), self._device)
        return write_part(connect(self._setup.archive), task.shard, records, origin)

    def records(self, task: EncodeTask) -> Iterator[Record]:
        """One for each image of the task, in no promised order; nothing is written."""
        source = Patient(self._setup.source)
        captioner, finder = self._captioner.of(task.captions), self._finder.of(task.keep)
        told = open_captions("none" if captioner else task.captions, source)
        reading = _Reading(source, told, open_regions("none" if finder else task.keep, source), task)
        width = max(self._codec.batch, captioner.batch if captioner else 0, finder.batch if finder else 0)
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(DECODERS) as decoders:
            contents = _ahead(readers, reading.fetch, task.images, READ_AHEAD, lambda image: image.size)
            batch: list[tuple[Record, Picture]] = []
            for found in _ahead(decoders, reading.decode, contents, DECODED_AHEAD):
                if isinstance(found, Record):
                    yield found
                    continue
                batch.append(found)
                if len(batch) >= width or sum(one.pixels_hwc.nbytes for _, one in batch) > READ_AHEAD_BYTES:
                    yield from self._encode(batch, captioner, finder)
                    batch = []
            yield from self._encode(batch, captioner, finder)

    def _encode(
        self, batch: list[tuple[Record, Picture]], captioner: Captioner | None, finder: Finder | None
    ) -> Iterator[Record]:
        """In batches as captioner, finder and codec like them."""
        if captioner is not None:
            batch = caption_batch(captioner, batch)
        if finder is not None:
            batch = label_batch(finder, batch)
        for first in range(0, len(batch), self._codec.batch):
            yield from encode_batch(self._codec, batch[first : first + self._codec.batch])


def setup_of(job: EncodeJob, load_codec: LoadCodec) -> EncodeSetup:
    """What the workers of a job start with."""
    return EncodeSetup(
        job.source,
        job.archive,
        job.spec,
        job.weights,
        default_cache(),
        load_codec,
        job.load_captioner,
        job.load_finder,
    )


def start_encoder(setup: EncodeSetup, device: str) -> Encoder:
    """A `Start` of the pools, with functools.partial."""
    return Encoder(setup, device)


def _weights_here(setup: EncodeSetup) -> Mapping[str, Path]:
    if all(path.exists() for path in setup.weights.values()):
        return setup.weights
    return fetch_weights(Archive(setup.archive), setup.spec, setup.weights_cache)


def _ahead(
    threads: ThreadPoolExecutor,
    function: Callable[[T], U],
    items: Iterable[T],
    width: int,
    bytes_of: Callable[[T], int] = lambda item: 0,
) -> Iterator[U]:
    """`map` by threads, ahead of the consumer by at most `width` items and READ_AHEAD_BYTES."""
    pending: deque[tuple[Future[U], int]] = deque()
    try:
        for item in items:
            pending.append((threads.submit(function, item), bytes_of(item)))
            while len(pending) > width or sum(size for _, size in pending) > READ_AHEAD_BYTES:
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()


@dataclass(frozen=True)
class _Reading:
    """How the images of one task are read, by threads."""

    source: Patient
    captions: Captions
    regions: Regions
    task: EncodeTask

    def fetch(self, image: PlannedImage) -> tuple[PlannedImage, bytes | str]:
        """The source file, or why there is none."""
        if image.size > MOST_SOURCE_BYTES:
            return image, f"{TOO_MANY_BYTES}: {image.size:,} bytes, the limit is {MOST_SOURCE_BYTES:,}"
        try:
            return image, self.source.read(image.key)
        except FileNotFoundError:
            return image, f"{MISSING}: it was listed with {image.size:,} bytes"
        except (ConnectionError, TimeoutError):
            raise  # the store's fault, not the image's: the run ends, and goes on when it is called again
        except OSError as error:
            return image, f"{UNREADABLE}: {one_line(error)}"

    def decode(self, fetched: tuple[PlannedImage, bytes | str]) -> Record | tuple[Record, Picture]:
        """A failure's record; or the picture, with its record but for the image."""
        image, content = fetched
        if isinstance(content, str):
            return self._failure(image, content, image.size, None)
        digest = hashlib.sha256(content).digest()[:16] if self.task.digest else None
        try:
            found = read_image(content)
            labels_hw = self.regions.labels(image.key, image.boxes, found.pixels_hwc)
        except UnreadableImage as error:
            return self._failure(image, str(error), len(content), digest)
        except BadRegions as error:  # no picture rather than one that lacks what was to be kept
            return self._failure(image, f"{BAD_REGIONS}: {one_line(error)}", len(content), digest)
        caption, notes = self._caption(image, found)
        # The failure stands until `encode_batch` puts the image in its place: a record has one of the two.
        record = Record(
            image.key, len(content), image.mtime, self.task.spec, None, NOT_ENCODABLE, notes, digest
        )
        return record, Picture(found.pixels_hwc, caption, labels_hw)

    def _caption(self, image: PlannedImage, found: SourceImage) -> tuple[str | None, str | None]:
        try:
            return self.captions.caption(image.key, image.caption, found.pixels_hwc), found.notes
        except BadCaption as error:
            note = f"caption unusable: {one_line(error)}"
            return None, f"{found.notes}; {note}" if found.notes else note

    def _failure(self, image: PlannedImage, failure: str, source_bytes: int, digest: bytes | None) -> Record:
        return Record(image.key, source_bytes, image.mtime, self.task.spec, None, failure, digest=digest)


def write_part(archive: Store, shard: Shard, records: list[Record], origin: Origin) -> ShardResult:
    """Puts the records of the shard, which may be none, in place as one part."""
    table = table_of(records, shard.run)
    content = to_parquet(table, origin)
    part = describe(shard.run, shard.first, shard.last, content, table)
    archive.write(f"images/{part.path}", content)
    images = [record.image for record in records if record.image is not None]
    return ShardResult(
        part,
        len(images),
        len(records) - len(images),
        sum(image.height * image.width for image in images),
        sum(record.source_bytes for record in records if record.image is not None),
        sum(len(image.bitstream) for image in images),
        origin,
    )


def write_crash(archive: Store, task: EncodeTask, why: str) -> ShardResult:
    """The part of an image that no worker survived."""
    failures = [
        Record(image.key, image.size, image.mtime, task.spec, None, f"{CRASHES}: {why}")
        for image in task.images
    ]
    return write_part(archive, task.shard, failures, Origin(0.0, "cpu"))
