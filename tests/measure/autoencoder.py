"""What the embedded autoencoder alone loses, on a folder of pictures: LPIPS-Alex, DISTS, PSNR. For its model cards.

    python -m tests.measure.autoencoder FOLDER [FILE...]

Without files it measures those that come with the program. Latents are not rounded: the codecs that use them lose more.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from archiver.codecs.autoencoder import decoded_levels, encoded_latents, load_autoencoder
from archiver.codecs.gan import padded
from archiver.weights import named_weights
from tests.measure.learned_presets import Judge, pictures


@torch.inference_mode()
def main() -> None:
    folder, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    files = files or [named_weights(name) for name in ("autoencoder-mse", "autoencoder")]
    networks = {file.stem: load_autoencoder(file, torch.device("cpu")) for file in files}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in networks}
    judge = Judge()
    for original in pictures(folder):
        judge.look(original)
        height, width = original.shape[:2]
        for name, network in networks.items():
            made = decoded_levels(network, encoded_latents(network, padded(original)), b"")
            found[name].append(judge.judged(made[:height, :width]))
    for name, rows in found.items():
        alex, texture, psnr = np.mean(rows, axis=0)
        print(f"{name:20} LPIPS {alex:.3f}  DISTS {texture:.3f}  PSNR {psnr:.2f} dB   {len(rows)} pictures")


if __name__ == "__main__":
    main()
