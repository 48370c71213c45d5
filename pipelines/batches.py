"""Records and their pictures, in batches as captioners, finders and codecs like them -> records with images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from manifests.records import EncodedImage, Record
from pipelines.captions import Captioner
from pipelines.codec import Codec, Picture, says_something
from pipelines.regions import Finder

# The stable words that a failure begins with; after them comes ": detail".
NO_CAPTION = "no caption"
NOT_ENCODABLE = "cannot be encoded"

T = TypeVar("T")


class Loaded(Generic[T]):
    """What a setting names: loaded for the first task that wants it, dropped by the first that does not."""

    def __init__(self, load: Callable[[str, str], T], device: str, plain: Sequence[str]) -> None:
        """`plain`: the settings that need nothing loaded."""
        self._load, self._device, self._plain = load, device, plain
        self.last: tuple[str, T] | None = None  # that was needed, by its setting

    def of(self, setting: str) -> T | None:
        """None for a plain setting."""
        if setting in self._plain:
            self.last = None
            return None
        if self.last is None or self.last[0] != setting:
            self.last = None  # before the next one takes its memory
            self.last = setting, self._load(setting, self._device)
        return self.last[1]


def caption_batch(captioner: Captioner, batch: list[tuple[Record, Picture]]) -> list[tuple[Record, Picture]]:
    """The same, captioned."""
    captioned = []
    for first in range(0, len(batch), captioner.batch):
        some = batch[first : first + captioner.batch]
        captions = captioner.captions([picture.pixels_hwc for _, picture in some])
        for (record, picture), caption in zip(some, captions, strict=True):
            told = caption.encode(errors="replace").decode()  # a model's may hold half a character
            captioned.append((record, replace(picture, caption=told)))
    return captioned


def label_batch(finder: Finder, batch: list[tuple[Record, Picture]]) -> list[tuple[Record, Picture]]:
    """The same, with what is to be kept."""
    labelled = []
    for first in range(0, len(batch), finder.batch):
        some = batch[first : first + finder.batch]
        labels = finder.labels([picture.pixels_hwc for _, picture in some])
        for (record, picture), labels_hw in zip(some, labels, strict=True):
            labelled.append((record, replace(picture, labels_hw=labels_hw)))
    return labelled


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
        return [replace(batch[0][0], failure=f"{NOT_ENCODABLE}: {one_line(error)}")]
    return [
        replace(record, image=image, failure=None) for (record, _), image in zip(batch, encoded, strict=True)
    ]


def one_line(error: BaseException) -> str:
    """What it says, cut short; its name where it says nothing."""
    return " ".join(str(error).split())[:160] or type(error).__name__
