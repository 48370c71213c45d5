"""Presets on a folder of pictures: bytes, LPIPS-Alex, DISTS, PSNR. The table of the README and the model cards.

    python tests/measure/learned_presets.py FOLDER PRESET...

Presets that read captions are given ImageNet tags, whose bytes are not counted. Quick, for many presets: distances come
from features in bf16, good to 0.002. `archiver evaluate` is the full measure.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from archiver.captioners import load_captioner
from archiver.codecs import load_codec
from archiver.perception.dists import DISTS
from archiver.perception.lpips import LPIPS
from archiver.precision import autocast
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from pipelines.codec import Picture, Pixels
from pipelines.images import read_image


def planes(pixels_hwc: Pixels) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None].float() / 255


class Judge:
    """LPIPS, DISTS and PSNR of reconstructions of one picture."""

    def __init__(self) -> None:
        self.lpips, self.dists = LPIPS("alexnet").eval(), DISTS().eval()

    def look(self, original: Pixels) -> None:
        """At the picture that comes next."""
        self.original, before = original, planes(original)
        with autocast(torch.device("cpu")):
            self.before = self.lpips.taps(2 * before - 1), self.dists.taps(before)

    def judged(self, decoded: Pixels) -> tuple[float, float, float]:
        after = planes(decoded)
        with autocast(torch.device("cpu")):
            alex = self.lpips.distance(self.lpips.taps(2 * after - 1), self.before[0])
            texture = self.dists.distance(self.dists.taps(after), self.before[1])
        error = float(np.mean((self.original.astype(np.float64) - decoded) ** 2))
        return float(alex), float(texture), float(10 * np.log10(255**2 / max(error, 1e-9)))


def pictures(folder: Path) -> Iterator[Pixels]:
    for file in sorted(file for file in folder.iterdir() if file.suffix in (".avif", ".png", ".jpg")):
        yield read_image(file.read_bytes()).pixels_hwc


@torch.inference_mode()
def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    codecs = {name: load_codec(find_preset(name).spec, shipped_weights(), "cpu") for name in names}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    reads = any(codec.reads_caption for codec in codecs.values())
    tagger = load_captioner("tags", "cpu") if reads else None
    judge = Judge()
    for original in pictures(folder):
        judge.look(original)
        caption = tagger.captions([original])[0] if tagger else None
        for name, codec in codecs.items():
            (encoded,) = codec.encode([Picture(original, caption)])
            (decoded,) = codec.decode([encoded])
            bits = 8 * len(encoded.bitstream) / original[..., 0].size
            found[name].append((bits, *judge.judged(decoded)))
    print(f"{'preset':16} {'bpp':>7} {'LPIPS':>7} {'DISTS':>7} {'PSNR':>7}   {len(found[names[0]])} pictures")
    for name, rows in found.items():
        bpp, alex_mean, texture_mean, psnr_mean = np.mean(rows, axis=0)
        print(f"{name:16} {bpp:7.4f} {alex_mean:7.3f} {texture_mean:7.3f} {psnr_mean:7.2f}")


if __name__ == "__main__":
    main()
