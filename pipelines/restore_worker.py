"""Some keys -> restored image files at the output: what one process does of a restore."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, repeat
from pathlib import Path

from manifests.archive import Archive
from manifests.storage import Location, Store, connect
from pipelines.codec import LoadCodec
from pipelines.decode import Decoder, Lost, Restored, decode_readings
from pipelines.images import Format, UnreadableImage, read_provenance, write_image
from pipelines.names import SUFFIX, long_name
from pipelines.patience import NO_SUCH_NAME
from pipelines.reading import Missing, Reading, ahead

_HEAD_BYTES = 65_536  # of an image file: most have said by then that they are reconstructions, and of what


@dataclass(frozen=True)
class Written:
    """A restored image lies at the output."""

    key: str
    path: str  # below the output
    size: int  # bytes
    decode_seconds: float
    caption_lost: bool  # the archive's caption of it is damaged: the file has none


@dataclass(frozen=True)
class Kept:
    """There was such a file already."""

    key: str
    path: str


@dataclass(frozen=True)
class RestoreTask:
    """Images of some parts, and the paths of their files: a `Job` of a pool."""

    readings: tuple[Reading, ...]
    names: Mapping[str, str]  # key -> path below the output

    def __len__(self) -> int:
        return sum(len(reading.keys) for reading in self.readings)

    @property
    def keys(self) -> list[str]:
        return [key for reading in self.readings for key in reading.keys]

    def halves(self) -> tuple["RestoreTask", "RestoreTask"]:
        first, second = self.pieces(-(-len(self) // 2))
        return first, second

    def pieces(self, images: int) -> Iterator["RestoreTask"]:
        """Tasks of so many images, the last of fewer; a part is cut where it must be."""
        taken: list[Reading] = []
        room = images
        for reading in self.readings:
            keys = reading.keys
            while keys:
                taken.append(replace(reading, keys=keys[:room]))
                keys, room = keys[room:], room - len(taken[-1].keys)
                if room == 0:
                    yield self._of(taken)
                    taken, room = [], images
        if taken:
            yield self._of(taken)

    def _of(self, readings: Sequence[Reading]) -> "RestoreTask":
        keys = [key for reading in readings for key in reading.keys]
        return RestoreTask(tuple(readings), {key: self.names[key] for key in keys})


Outcome = Written | Kept | Lost | Missing
Outcomes = tuple[Outcome, ...]


@dataclass(frozen=True)
class RestoreSetup:
    """What a worker needs to know, whatever the task. Small and picklable."""

    archive: Location
    output: Location
    format: Format
    overwrite: bool
    weights_cache: Path
    load_codec: LoadCodec


class RestoreWorker:
    """A `Work` of a pool: open stores, and codecs loaded as they are needed."""

    def __init__(self, setup: RestoreSetup, device: str, archive: Archive | None = None) -> None:
        """`archive`: where it is open already."""
        self._setup = setup
        self._archive = archive or Archive(setup.archive)
        self._output: Store = connect(setup.output)
        self._decoder = Decoder(self._archive, setup.load_codec, setup.weights_cache, device)

    def __call__(self, task: RestoreTask) -> Outcomes:
        return tuple(self.stream(task))

    def stream(self, task: RestoreTask) -> Iterator[Outcome]:
        """Each key of the task once; files that exist are not decoded."""
        kept: list[Kept] = []
        names: dict[str, str] = {}

        def readings() -> Iterator[Reading]:
            for reading in task.readings:
                targets = ahead(lambda key: self._target(key, task.names[key]), reading.keys)
                left = []
                for key, (path, exists) in zip(reading.keys, targets, strict=True):
                    if exists and not self._setup.overwrite:
                        kept.append(Kept(key, path))
                    else:
                        names[key] = path
                        left.append(key)
                if left:
                    yield replace(reading, keys=tuple(left))

        for outcome in decode_readings(self._archive.store, self._decoder, readings()):
            yield self._write(outcome, names[outcome.key]) if isinstance(outcome, Restored) else outcome
            yield from kept
            kept.clear()
        yield from kept

    def _target(self, key: str, path: str) -> tuple[str, bool]:
        """Where the image goes, and whether it lies there already.

        Another key's reconstruction may have the path from an earlier restore: then a longer one is taken.
        """
        longer = long_name(key, self._setup.format)
        for name in chain((path,), accumulate(repeat(SUFFIX[self._setup.format]), initial=longer)):
            if not self._output.exists(name):
                return name, False
            if self._key_of(name) in (None, key):
                return name, True
        raise AssertionError

    def _key_of(self, path: str) -> str | None:
        """The key that a file is a reconstruction of; None where it is none of this program's."""
        size = self._output.size(path) or 0
        for end in sorted({min(size, _HEAD_BYTES), size}):
            try:
                provenance = read_provenance(self._output.read_range(path, 0, end))
            except UnreadableImage:
                continue
            if provenance is not None:
                return provenance.key
        return None

    def _write(self, image: Restored, path: str) -> Written | Lost:
        try:
            content = write_image(image.pixels_hwc, self._setup.format, image.provenance)
        except ValueError as error:
            return Lost(image.key, str(error))
        try:
            self._output.write(path, content)
        except OSError as error:
            if error.errno not in NO_SUCH_NAME:
                raise
            return Lost(image.key, f"no file can be written at {path!r}: {error.strerror}")
        return Written(image.key, path, len(content), image.seconds, image.caption_lost)
