"""The presets of the avif family on real pictures: bytes, fidelity, speed.

python tests/measure/avif_presets.py SOURCE                           the table of the README
python tests/measure/avif_presets.py SOURCE --grid 1:15,25 2:20,40    scale:qualities, to choose presets from
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from archiver.codecs import load_codec
from archiver.codecs.avif import avif_spec
from archiver.presets import PRESETS
from manifests.records import CodecSpec
from pipelines.codec import Picture, Pixels
from pipelines.images import read_image

HEADING = "preset               spec              bpp   bytes    PSNR    SSIM   encode   decode"
UNITS = "                                             mean      dB    luma  MPix/s   MPix/s"


def sample(source: Path, count: int) -> list[Pixels]:
    """`count` pictures of a folder, or all: every n-th in the order of their names, n their number // count."""
    files = sorted(file for file in source.iterdir() if file.suffix in (".avif", ".png", ".jpg"))
    step = max(1, len(files) // count)
    return [read_image(file.read_bytes()).pixels_hwc for file in files[::step][:count]]


def luma(pixels_hwc: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels_hwc).convert("L"))


def psnr(first: Pixels, second: Pixels) -> float:
    """dB, over all three channels."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def ssim(first: Pixels, second: Pixels) -> float:
    similarity: Callable[..., float] = structural_similarity
    return similarity(luma(first), luma(second), data_range=255, gaussian_weights=True, sigma=1.5)


def measure(name: str, spec: CodecSpec, sources: Sequence[Pixels]) -> str:
    """One line of the table."""
    codec = load_codec(spec, {}, "cpu")
    started = time.perf_counter()
    encoded = codec.encode([Picture(pixels_hwc, None) for pixels_hwc in sources])
    between = time.perf_counter()
    decoded = codec.decode(encoded)
    ended = time.perf_counter()

    megapixels = sum(image.height * image.width for image in encoded) / 1e6
    bpp = [8 * len(image.bitstream) / (image.height * image.width) for image in encoded]
    bitstream_bytes = [len(image.bitstream) for image in encoded]
    pairs = list(zip(sources, decoded, strict=True))
    psnrs, ssims = [psnr(*pair) for pair in pairs], [ssim(*pair) for pair in pairs]
    return (
        f"{name:20} {spec.id}  {np.mean(bpp):.4f}  {np.mean(bitstream_bytes):6,.0f}"
        f"  {np.mean(psnrs):6.2f}  {np.mean(ssims):6.4f}"
        f"  {megapixels / (between - started):6.1f}  {megapixels / (ended - between):7.1f}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("source", type=Path)
    arguments.add_argument("--count", type=int, default=100, help="pictures at most")
    arguments.add_argument("--grid", nargs="*", default=[], help="scale:quality,quality,...")
    found = arguments.parse_args()
    sources = sample(found.source, found.count)
    print(f"{len(sources)} pictures, {sum(a.shape[0] * a.shape[1] for a in sources) / 1e6:.1f} MPix")
    print(HEADING, UNITS, sep="\n")
    settings = [(preset.name, preset.spec) for preset in PRESETS if preset.spec.name == "avif"]
    if found.grid:
        settings = [
            (f"scale {scale} quality {quality}", avif_spec(int(scale), int(quality)))
            for scale, qualities in (column.split(":") for column in found.grid)
            for quality in qualities.split(",")
        ]
    for name, spec in settings:
        print(measure(name, spec, sources), flush=True)


if __name__ == "__main__":
    main()
