"""SC against GC on pictures with label maps: what labels cost, how bytes fall, and what kept regions gain.

    python -m tests.measure.selective FOLDER [FOLDER ...] --weights FILE [--channels 8] [--rates 2 4 8] [--count N]

A folder holds photo.jpg and photo.png, kinds of things by number, 0 for none (as COCO's), or photo.png and
photo_label.png, 11 for none (as CamVid's). Each picture is split twice: its largest kind is kept and the rest drawn,
and the other way round. SC codes at `--channels`; beside it stands GC, all of the picture, at that of the `--rates`
whose bytes are nearest. PSNR is of the kept pixels; LPIPS-Alex of pictures whose drawn pixels are the original's,
over the share of the kept ones. Bytes are whole bitstreams; labels are label map and heat map, which are one.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from archiver.codecs.gan import GanCodec, load_gan
from archiver.codecs.label_maps import encode_labels
from archiver.perception.lpips import LPIPS
from archiver.training.gan import RATES
from manifests.records import CodecSpec, EncodedImage
from pipelines.codec import Picture, Pixels
from pipelines.images import read_image
from pipelines.regions import CODED, DRAWN
from tests.golden_files import sha256

NONE_IN_COCO, NONE_IN_CAMVID = 0, 11
SHARES = (0.25, 0.5, 0.75, 1.0)  # of cells that are drawn: the table's lines end here
MOST_LABEL_BPP = 0.01

Kept = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True)
class Row:
    """One split of one picture."""

    drawn: float  # share of cells
    label_bpp: float
    sc_bytes: int
    whole_bytes: int  # of GC at as many channels
    gc_bytes: int  # of GC at about as many bytes
    sc_lpips: float
    gc_lpips: float
    sc_psnr: float
    gc_psnr: float


def gan_of(file: Path, channels: int) -> GanCodec:
    """The codec of a weights file, which no preset need name."""
    name = sha256(file.read_bytes())
    return load_gan(CodecSpec("gan", 1, {"channels": channels}, (name,)), {name: file}, "cpu")


def labelled(folder: Path) -> Iterator[tuple[Pixels, NDArray[np.uint8], int]]:
    """Pictures, the kinds of their pixels, and the number that means none."""
    for file in sorted(folder.glob("*.jpg")):
        if file.with_suffix(".png").exists():
            yield _pixels(file), np.array(Image.open(file.with_suffix(".png"))), NONE_IN_COCO
    for file in sorted(folder.glob("*_label.png")):
        picture = file.with_name(file.name.replace("_label.png", ".png"))
        yield _pixels(picture), np.array(Image.open(file)), NONE_IN_CAMVID


def _pixels(file: Path) -> Pixels:
    return read_image(file.read_bytes()).pixels_hwc


def splits(kinds_hw: NDArray[np.uint8], none: int) -> list[Kept]:
    """Which pixels are kept: those of the largest kind, and all but those; nothing where there is one kind only."""
    kinds, areas = np.unique(kinds_hw[kinds_hw != none], return_counts=True)
    if not len(kinds):
        return []
    largest = kinds_hw == kinds[areas.argmax()]
    return [] if largest.all() else [largest, ~largest]


def label_bits(codec: GanCodec, labels_hw: NDArray[np.uint8]) -> int:
    """Of the label map alone, to whole words."""
    encoder = constriction.stream.queue.RangeEncoder()
    encode_labels(encoder, labels_hw, codec.label_tables)
    return 32 * len(encoder.get_compressed())


def measured(sc: GanCodec, gc: Mapping[int, GanCodec], lpips: LPIPS, original: Pixels, kept: Kept) -> Row:
    """`gc`: by channels, those that may stand beside it, and as many as SC's."""
    (selective,) = sc.encode([Picture(original, None, np.where(kept, CODED, DRAWN).astype(np.uint8))])
    whole = {channels: codec.encode([Picture(original, None)])[0] for channels, codec in gc.items()}
    nearest = min(whole, key=lambda n: abs(len(whole[n].bitstream) - len(selective.bitstream)))
    labels_hw = sc.unpack(selective.bitstream, *_cells(selective)).labels_hw
    (sc_pixels,), (gc_pixels,) = sc.decode([selective]), gc[nearest].decode([whole[nearest]])
    return Row(
        float((labels_hw > 0).mean()),
        label_bits(sc, labels_hw) / kept.size,
        len(selective.bitstream),
        len(whole[sc.channels].bitstream),
        len(whole[nearest].bitstream),
        *(inner_lpips(lpips, original, decoded, kept) for decoded in (sc_pixels, gc_pixels)),
        *(inner_psnr(original, decoded, kept) for decoded in (sc_pixels, gc_pixels)),
    )


def _cells(image: EncodedImage) -> tuple[int, int]:
    return max(2, -(-image.height // 16)), max(2, -(-image.width // 16))


def inner_psnr(original: Pixels, decoded: Pixels, kept: Kept) -> float:
    error = (original.astype(np.float64) - decoded)[kept]
    return float(10 * np.log10(255**2 / max(float(np.mean(error**2)), 1e-9)))


@torch.inference_mode()
def inner_lpips(lpips: LPIPS, original: Pixels, decoded: Pixels, kept: Kept) -> float:
    both = (original, np.where(kept[..., None], decoded, original))
    before, after = (torch.from_numpy(one.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1 for one in both)
    return float(lpips(after, before)) / float(kept.mean())


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        f"{'drawn':>9} {'splits':>6} {'label bpp':>9} {'SC bytes':>8} {'of whole':>8} {'GC bytes':>8}   "
        f"{'LPIPS SC / GC':>14} {'SC wins':>8}   {'PSNR SC / GC':>14} {'SC wins':>8}"
    )
    for first, last in zip((0.0, *SHARES), SHARES, strict=False):
        some = [row for row in rows if first <= row.drawn < last or row.drawn == last == 1]
        if some:
            yield _line(f"{first:.0%}-{last:.0%}", some)
    yield _line("all", rows)
    most = max(row.label_bpp for row in rows)
    held = "yes" if most < MOST_LABEL_BPP else "NO"
    yield f"labels take {most:.4f} bpp at most; below {MOST_LABEL_BPP}: {held}"


def _line(name: str, rows: Sequence[Row]) -> str:
    mean = {field: float(np.mean([getattr(row, field) for row in rows])) for field in vars(rows[0])}
    nearer = sum(row.sc_lpips < row.gc_lpips for row in rows)
    cleaner = sum(row.sc_psnr > row.gc_psnr for row in rows)
    return (
        f"{name:>9} {len(rows):6} {mean['label_bpp']:9.4f} {mean['sc_bytes']:8.0f} "
        f"{mean['sc_bytes'] / mean['whole_bytes']:8.0%} {mean['gc_bytes']:8.0f}   "
        f"{mean['sc_lpips']:6.3f} / {mean['gc_lpips']:.3f} {nearer / len(rows):8.0%}   "
        f"{mean['sc_psnr']:6.2f} / {mean['gc_psnr']:.2f} {cleaner / len(rows):8.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--channels", type=int, default=RATES[-1], help="of SC")
    parser.add_argument("--rates", type=int, nargs="+", default=RATES, help="channels that GC may have")
    parser.add_argument("--count", type=int, default=24, help="pictures at most, of each folder")
    given = parser.parse_args()
    sc = gan_of(given.weights, given.channels)
    gc = {channels: gan_of(given.weights, channels) for channels in {*given.rates, given.channels}}
    lpips = LPIPS("alexnet").eval()
    rows = []
    for folder in given.folders:
        for _, (original, kinds_hw, none) in zip(range(given.count), labelled(folder), strict=False):
            rows += [measured(sc, gc, lpips, original, kept) for kept in splits(kinds_hw, none)]
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
