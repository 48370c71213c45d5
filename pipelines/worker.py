"""One shard of a plan -> one part: images are read and decoded by threads while others are encoded."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from manifests.archive import Archive
from manifests.part import Origin, Part, describe, table_of, to_parquet
from manifests.plan import Shard
from manifests.records import CodecSpec, EncodedImage, Record
from manifests.storage import Location, Store, connect
from pipelines.captions import SOURCES, BadCaption, Captioner, Captions, LoadCaptioner, open_captions
from pipelines.codec import Codec, LoadCodec, Picture, says_something
from pipelines.encode_job import EncodeJob
from pipelines.images import SourceImage, UnreadableImage, read_image
from pipelines.weights import default_cache, fetch_weights

# The stable words that a failure begins with, beside those of images.py; after them comes ": detail".
MISSING = "missing at the source"
UNREADABLE = "cannot be read"
TOO_MANY_BYTES = "file too large"
NO_CAPTION = "no caption"
NOT_ENCODABLE = "cannot be encoded"
CRASHES = "crashes the worker"

READERS, READ_AHEAD = (
    8,
    16,
)  # threads that wait for the store, and source files that they are ahead of the decoders
READ_AHEAD_BYTES = 256_000_000
DECODERS, DECODED_AHEAD = 2, 2  # decoded images wait for the codec: each may have a gigabyte
MOST_SOURCE_BYTES = 1_000_000_000
RETRIES, PAUSE_SECONDS = 2, 0.5

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


@dataclass(frozen=True)
class EncodeTask:
    """Rows first..last of a plan, and those of their images that the archive lacks: a `Job`."""

    shard: Shard
    images: tuple[PlannedImage, ...]
    spec: str  # its id
    captions: str  # see pipelines/captions.py
    digest: bool

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


class Encoder:
    """A loaded codec, and the way to its source and archive: `EncodeTask` -> `ShardResult`."""

    def __init__(self, setup: EncodeSetup, device: str) -> None:
        self._setup = setup
        self._placed = device
        self._device = device.partition(":")[0]
        self._codec = setup.load_codec(setup.spec, _weights_here(setup), device)
        self._captioner: tuple[str, Captioner] | None = None  # the last that was needed, by its setting

    def __call__(self, task: EncodeTask) -> ShardResult:
        started = time.monotonic()
        records = list(self.records(task))
        origin = Origin(time.monotonic() - started, self._device)
        return write_part(connect(self._setup.archive), task.shard, records, origin)

    def records(self, task: EncodeTask) -> Iterator[Record]:
        """One for each image of the task, in no promised order; nothing is written."""
        source = connect(self._setup.source)  # with credentials as they are now
        captioner = self._captioner_of(task)
        captions = open_captions("none" if captioner else task.captions, source)
        reading = _Reading(source, captions, task)
        width = max(self._codec.batch, captioner.batch if captioner else 0)
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(DECODERS) as decoders:
            contents = _ahead(readers, reading.fetch, task.images, READ_AHEAD, lambda image: image.size)
            batch: list[tuple[Record, Picture]] = []
            for found in _ahead(decoders, reading.decode, contents, DECODED_AHEAD):
                if isinstance(found, Record):
                    yield found
                    continue
                batch.append(found)
                if len(batch) >= width or sum(one.pixels_hwc.nbytes for _, one in batch) > READ_AHEAD_BYTES:
                    yield from self._encode(batch, captioner)
                    batch = []
            yield from self._encode(batch, captioner)

    def _encode(self, batch: list[tuple[Record, Picture]], captioner: Captioner | None) -> Iterator[Record]:
        """In batches as captioner and codec like them."""
        if captioner is not None:
            batch = caption_batch(captioner, batch)
        for first in range(0, len(batch), self._codec.batch):
            yield from encode_batch(self._codec, batch[first : first + self._codec.batch])

    def _captioner_of(self, task: EncodeTask) -> Captioner | None:
        """Loaded for the first task that wants it, dropped by the first that does not."""
        if task.captions in SOURCES:
            self._captioner = None
            return None
        if self._captioner is None or self._captioner[0] != task.captions:
            self._captioner = None  # before the next one takes its memory
            self._captioner = task.captions, self._setup.load_captioner(task.captions, self._placed)
        return self._captioner[1]


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

    source: Store
    captions: Captions
    task: EncodeTask

    def fetch(self, image: PlannedImage) -> tuple[PlannedImage, bytes | str]:
        """The source file, or why there is none."""
        if image.size > MOST_SOURCE_BYTES:
            return image, f"{TOO_MANY_BYTES}: {image.size:,} bytes, the limit is {MOST_SOURCE_BYTES:,}"
        try:
            return image, _read(self.source, image.key)
        except FileNotFoundError:
            return image, f"{MISSING}: it was listed with {image.size:,} bytes"
        except (ConnectionError, TimeoutError):
            raise  # the store's fault, not the image's: the run ends, and goes on when it is called again
        except OSError as error:
            return image, f"{UNREADABLE}: {_one_line(error)}"

    def decode(self, fetched: tuple[PlannedImage, bytes | str]) -> Record | tuple[Record, Picture]:
        """A failure's record; or the picture, with its record but for the image."""
        image, content = fetched
        if isinstance(content, str):
            return self._failure(image, content, image.size, None)
        digest = hashlib.sha256(content).digest()[:16] if self.task.digest else None
        try:
            found = read_image(content)
            caption, notes = self._caption(image, found)
        except UnreadableImage as error:
            return self._failure(image, str(error), len(content), digest)
        # The failure stands until `encode_batch` puts the image in its place: a record has one of the two.
        record = Record(
            image.key, len(content), image.mtime, self.task.spec, None, NOT_ENCODABLE, notes, digest
        )
        return record, Picture(found.pixels_hwc, caption)

    def _caption(self, image: PlannedImage, found: SourceImage) -> tuple[str | None, str | None]:
        try:
            return self.captions.caption(image.key, image.caption, found.pixels_hwc), found.notes
        except BadCaption as error:
            note = f"caption unusable: {_one_line(error)}"
            return None, f"{found.notes}; {note}" if found.notes else note

    def _failure(self, image: PlannedImage, failure: str, source_bytes: int, digest: bytes | None) -> Record:
        return Record(image.key, source_bytes, image.mtime, self.task.spec, None, failure, digest=digest)


def caption_batch(captioner: Captioner, batch: list[tuple[Record, Picture]]) -> list[tuple[Record, Picture]]:
    """The same, captioned."""
    captioned = []
    for first in range(0, len(batch), captioner.batch):
        some = batch[first : first + captioner.batch]
        captions = captioner.captions([picture.pixels_hwc for _, picture in some])
        for (record, picture), caption in zip(some, captions, strict=True):
            captioned.append((record, replace(picture, caption=caption)))
    return captioned


def encode_batch(codec: Codec, batch: list[tuple[Record, Picture]]) -> list[Record]:
    """Records with their images; a picture that the codec refuses costs none of its neighbours.

    Nor does one without a caption, where the codec would decode from it.
    """
    if codec.reads_caption:
        bare = [
            replace(record, failure=f"{NO_CAPTION}: the codec decodes from it")
            for record, picture in batch
            if not says_something(picture.caption)
        ]
        if bare:
            rest = [one for one in batch if says_something(one[1].caption)]
            return bare + encode_batch(codec, rest)
    if not batch:
        return []
    try:
        encoded: list[EncodedImage] = codec.encode([picture for _, picture in batch])
    except ValueError as error:
        if len(batch) > 1:
            return [record for one in batch for record in encode_batch(codec, [one])]
        return [replace(batch[0][0], failure=f"{NOT_ENCODABLE}: {_one_line(error)}")]
    return [
        replace(record, image=image, failure=None) for (record, _), image in zip(batch, encoded, strict=True)
    ]


def _read(source: Store, key: str) -> bytes:
    """Asks again where a store does not answer: one lost connection in a million must not end a run."""
    for attempt in range(RETRIES):
        try:
            return source.read(key)
        except (ConnectionError, TimeoutError):
            time.sleep(PAUSE_SECONDS * 2**attempt)
    return source.read(key)


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
