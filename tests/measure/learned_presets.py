"""Presets on a folder of pictures: bytes, LPIPS-Alex, DISTS, PSNR. The table of the README and the model cards.

    python tests/measure/learned_presets.py FOLDER PRESET...

Presets that read captions are given ImageNet tags, whose bytes are not counted. Quick, for many presets: distances come
from features in bf16, good to 0.002. `archiver evaluate` is the full measure.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from archiver.captioners import load_captioner
from archiver.codecs import load_codec
from archiver.perception.dists import DISTS
from archiver.perception.lpips import LPIPS
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from pipelines.codec import Picture, Pixels
from pipelines.images import read_image


def planes(pixels_hwc: Pixels) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None].float() / 255


@torch.inference_mode()
def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    codecs = {name: load_codec(find_preset(name).spec, shipped_weights(), "cpu") for name in names}
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in names}
    lpips, dists = LPIPS("alexnet").eval(), DISTS().eval()
    reads = any(codec.reads_caption for codec in codecs.values())
    tagger = load_captioner("tags", "cpu") if reads else None
    for file in sorted(file for file in folder.iterdir() if file.suffix in (".avif", ".png", ".jpg")):
        original = read_image(file.read_bytes()).pixels_hwc
        before = planes(original)
        caption = tagger.captions([original])[0] if tagger else None
        with torch.autocast("cpu", torch.bfloat16):
            lpips_before, dists_before = lpips.taps(2 * before - 1), dists.taps(before)
        for name, codec in codecs.items():
            (encoded,) = codec.encode([Picture(original, caption)])
            (decoded,) = codec.decode([encoded])
            after = planes(decoded)
            with torch.autocast("cpu", torch.bfloat16):
                alex = lpips.distance(lpips.taps(2 * after - 1), lpips_before)
                texture = dists.distance(dists.taps(after), dists_before)
            error = float(np.mean((original.astype(np.float64) - decoded) ** 2))
            bits = 8 * len(encoded.bitstream) / original[..., 0].size
            psnr = float(10 * np.log10(255**2 / max(error, 1e-9)))
            found[name].append((bits, float(alex), float(texture), psnr))
    print(f"{'preset':16} {'bpp':>7} {'LPIPS':>7} {'DISTS':>7} {'PSNR':>7}   {len(found[names[0]])} pictures")
    for name, rows in found.items():
        bpp, alex_mean, texture_mean, psnr_mean = np.mean(rows, axis=0)
        print(f"{name:16} {bpp:7.4f} {alex_mean:7.3f} {texture_mean:7.3f} {psnr_mean:7.2f}")


if __name__ == "__main__":
    main()
