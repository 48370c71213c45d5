"""What an evaluation found, as values: pictures, codecs, conventional codecs at the same bytes, and their sums."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from archiver.evaluation.artefacts import Artefacts
from archiver.evaluation.baselines import Name
from archiver.evaluation.metrics import Scores, mean_scores


@dataclass(frozen=True)
class PictureResult:
    """One reconstruction of one picture."""

    key: str
    height: int  # pixels
    width: int
    bytes: int  # of the bitstream with its header, or of the conventional file
    scores: Scores
    artefacts: Artefacts

    @property
    def bpp(self) -> float:
        return 8 * self.bytes / (self.height * self.width)


@dataclass(frozen=True)
class Sums:
    """Over the pictures of one codec."""

    pictures: int
    bytes: int
    bpp_mean: float  # mean of the pictures' bits per pixel
    bpp_total: float  # all bits over all pixels
    scores: Scores  # means
    worst: Artefacts  # the largest of each


def sums_of(pictures: Sequence[PictureResult]) -> Sums:
    pixels = sum(picture.height * picture.width for picture in pictures)
    total_bytes = sum(picture.bytes for picture in pictures)
    return Sums(
        len(pictures),
        total_bytes,
        sum(picture.bpp for picture in pictures) / len(pictures),
        8 * total_bytes / pixels,
        mean_scores([picture.scores for picture in pictures]),
        Artefacts(
            **{
                name: max(getattr(picture.artefacts, name) for picture in pictures)
                for name in vars(pictures[0].artefacts)
            }
        ),
    )


@dataclass(frozen=True)
class Speed:
    """Of one thread in a process of its own: CPU time of the codec alone, after one picture to warm up."""

    megapixels_per_second: float
    peak_bytes: int  # resident memory of that process, interpreter and libraries included


@dataclass(frozen=True)
class ArchiveBytes:
    """Every object of the archive that the pictures were encoded into."""

    pixels: int  # of all pictures there, also where another preset could not encode them
    total: int
    bitstreams: int
    weights: int  # once an archive, however many pictures it holds

    @property
    def overhead(self) -> int:
        """Parts beyond their bitstreams, log, plans, specs, format document."""
        return self.total - self.bitstreams - self.weights


@dataclass(frozen=True)
class PatchDistance:
    """Between all originals and all reconstructions, by features of Inception (archiver/evaluation/frechet.py)."""

    patches: int
    fid: float
    kid: float


@dataclass(frozen=True)
class CodecResult:
    """One preset, through a real archive."""

    preset: str
    family: str
    summary: str
    pictures: tuple[PictureResult, ...]
    archive: ArchiveBytes
    encode: Speed
    decode: Speed
    patch_distance: PatchDistance | None = None

    @property
    def sums(self) -> Sums:
        return sums_of(self.pictures)

    @property
    def bpp_all_in(self) -> float:
        """All bytes of the archive, weights included."""
        return 8 * self.archive.total / self.archive.pixels


@dataclass(frozen=True)
class MatchedPicture:
    """A conventional codec's picture at the bytes of a codec's bitstream."""

    picture: PictureResult
    scale: int
    quality: int
    over: bool  # its smallest file is larger than that: no picture at equal bytes


@dataclass(frozen=True)
class MatchedResult:
    """A conventional codec at the bytes of one preset, picture by picture."""

    name: Name
    preset: str
    pictures: tuple[MatchedPicture, ...]

    @property
    def sums(self) -> Sums:
        return sums_of([matched.picture for matched in self.pictures])

    @property
    def over(self) -> int:
        return sum(matched.over for matched in self.pictures)


@dataclass(frozen=True)
class Shown:
    """A picture of the report: files for a browser, by what they show ("original", a preset, "avif at <preset>")."""

    key: str
    height: int  # pixels of the files, at most 768 a side
    width: int
    files: Mapping[str, bytes]  # WebP
    captions: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """All of it."""

    source: str
    created: str  # ISO 8601, UTC
    machine: str
    pictures: tuple[str, ...]  # keys
    pixels: int
    left_out: Mapping[str, str]  # key -> why it could not take part
    failed: tuple[str, ...]  # those of them that cannot be read, or that a preset could not encode
    codecs: tuple[CodecResult, ...]
    matched: tuple[MatchedResult, ...]
    shown: tuple[Shown, ...]

    def matched_at(self, preset: str) -> dict[Name, MatchedResult]:
        return {matched.name: matched for matched in self.matched if matched.preset == preset}


@dataclass(frozen=True)
class Duel:
    """A preset against a conventional codec at equal bytes, picture by picture, by one metric."""

    wins: int
    pictures: int
    lost: tuple[str, ...]  # keys of the pictures at which the preset is not better


def duel(codec: CodecResult, matched: MatchedResult, worse: Callable[[Scores], float]) -> Duel:
    """`worse` is lower for better pictures."""
    theirs = {one.picture.key: one.picture.scores for one in matched.pictures}
    lost = tuple(
        picture.key for picture in codec.pictures if not worse(picture.scores) < worse(theirs[picture.key])
    )
    return Duel(len(codec.pictures) - len(lost), len(codec.pictures), lost)
