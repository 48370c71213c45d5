"""Records -> pixels, or why there are none; codecs and weights are loaded as they are needed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from manifests.archive import Archive
from manifests.records import CodecSpec, Record
from manifests.storage import Store
from pipelines.codec import Codec, LoadCodec, Pixels, says_something
from pipelines.provenance import Provenance
from pipelines.reading import Missing, Reading, ahead, read
from pipelines.spent import Spent
from pipelines.weights import fetch_weights

# Never a picture drawn from an empty text: it would be another one.
NO_CAPTION = "cannot be decoded: its caption is missing or damaged, and the codec decodes from it"


@dataclass(frozen=True)
class Restored:
    """One image as the archive gives it back."""

    key: str
    pixels_hwc: Pixels
    record: Record
    provenance: Provenance
    seconds: float  # that the codec took for it, see `Spent`: its share of a batch
    caption_lost: bool = False  # its caption is damaged in the archive: the record here has none


@dataclass(frozen=True)
class Lost:
    """A key that was asked for, and whose image cannot be had."""

    key: str
    why: str  # one line


def why_not_archived(failure: str) -> str:
    return f"it was not archived: {failure}"


class Decoder:
    """The codecs of one archive, on one device, each loaded once."""

    def __init__(self, archive: Archive, load_codec: LoadCodec, weights_cache: Path, device: str) -> None:
        self._archive, self._load_codec = archive, load_codec
        self._weights_cache, self._device = weights_cache, device
        self._codecs: dict[str, Codec | str] = {}  # spec id -> codec, or why there is none

    def decode(self, records: Iterable[Record]) -> Iterator[Restored | Lost]:
        """In the order of the records; as many at once as the codec handles best, while the spec stays."""
        batch: list[Record] = []
        for record in records:
            if record.image is None:
                yield Lost(record.key, why_not_archived(str(record.failure)))
                continue
            if batch and record.spec != batch[0].spec:
                yield from self._decoded(batch)
                batch = []
            batch.append(record)
            codec = self._codec(record.spec)
            if isinstance(codec, str) or len(batch) >= codec.batch:
                yield from self._decoded(batch)
                batch = []
        if batch:
            yield from self._decoded(batch)

    def _codec(self, spec_id: str) -> Codec | str:
        if spec_id not in self._codecs:
            self._codecs[spec_id] = self._loaded(spec_id)
        return self._codecs[spec_id]

    def _loaded(self, spec_id: str) -> Codec | str:
        try:
            spec = self._archive.spec(spec_id)
            return self._load_codec(
                spec, fetch_weights(self._archive, spec, self._weights_cache), self._device
            )
        except FileNotFoundError as error:
            return f"the archive lacks what decoding needs: {_one_line(error)}"
        except (ValueError, KeyError, TypeError) as error:
            return f"no codec for spec {spec_id}: {_one_line(error)}"

    def _decoded(self, batch: list[Record]) -> Iterator[Restored | Lost]:
        """Of images of one spec."""
        codec = self._codec(batch[0].spec)
        if isinstance(codec, str):
            yield from (Lost(record.key, codec) for record in batch)
            return
        if codec.reads_caption:
            yield from (Lost(record.key, NO_CAPTION) for record in batch if not _captioned(record))
            batch = [record for record in batch if _captioned(record)]
            if not batch:
                return
        spent = Spent(self._device)
        try:
            decoded = codec.decode([record.image for record in batch if record.image is not None])
        except Exception as error:  # noqa: BLE001 - whatever a codec raises costs one image, not the others
            if len(batch) == 1:
                yield Lost(batch[0].key, f"cannot be decoded: {_one_line(error)}")
            else:
                for record in batch:
                    yield from self._decoded([record])
            return
        seconds = spent.seconds() / len(batch)
        for record, pixels_hwc in zip(batch, decoded, strict=True):
            yield self._checked(record, pixels_hwc, codec.spec, seconds)

    def _checked(
        self, record: Record, pixels_hwc: Pixels, spec: CodecSpec, seconds: float
    ) -> Restored | Lost:
        assert record.image is not None
        image = record.image
        if pixels_hwc.shape != (image.height, image.width, 3):
            found = " x ".join(map(str, pixels_hwc.shape))
            return Lost(record.key, f"decoded to {found}, expected {image.height} x {image.width} x 3")
        provenance = Provenance(
            codec=spec.name,
            spec=record.spec,
            bitstream_bytes=len(image.bitstream),
            archive=str(self._archive.location),
            key=record.key,
            caption=image.caption,
            generative=bool(spec.weights),
        )
        return Restored(record.key, pixels_hwc, record, provenance, seconds)


def _captioned(record: Record) -> bool:
    return record.image is not None and says_something(record.image.caption)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def decode_readings(
    store: Store, decoder: Decoder, readings: Iterable[Reading]
) -> Iterator[Restored | Lost | Missing]:
    """All that the readings ask for, decoded in batches that may hold images of several parts."""
    missing: list[Missing] = []
    captions_lost: set[str] = set()

    def records() -> Iterator[Record]:
        for found in ahead(partial(read, store), readings):
            missing.extend(found.missing)
            captions_lost.update(found.captions_lost)
            yield from found.records

    for outcome in decoder.decode(records()):
        if isinstance(outcome, Restored) and outcome.key in captions_lost:
            outcome = replace(outcome, caption_lost=True)
        yield outcome
    yield from missing
