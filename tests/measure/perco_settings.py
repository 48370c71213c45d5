"""What steps, guidance, tiles and captions are worth to `perco-tiny`, on photographs that it was never trained on.

    python -m tests.measure.perco_settings SOURCE PERCO.safetensors AUTOENCODER.safetensors [--photos N]

SOURCE is the folder that the training had: every fortieth of its photographs was held out; those with a caption are
drawn with their own, with another photograph's ("other"), and with none. A caption matters where "own" is nearer to the
photograph than "other": the last columns say how much, and in how many of the pictures. LPIPS is AlexNet's, v0.1.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from archiver.codecs.perco import PercoCodec, load_perco
from archiver.perception.lpips import LPIPS
from archiver.training.photos import list_photos, read_photo
from archiver.training.run import HELD_OUT
from manifests.records import CodecSpec, EncodedImage, Param
from manifests.storage import connect, locate
from pipelines.codec import Picture, Pixels
from tests.golden_files import sha256

RATES = ((1, 256), (2, 1024))  # shrink, codes
# Of the defaults, one is changed at a time.
DEFAULTS: Mapping[str, Param] = {
    "latents": "embedded", "indices": "model", "captions": True, "levels": "cosine", "spacing": "trailing",
    "steps": 5, "guidance": 1.5, "tile": 48, "overlap": 16, "precision": "fp32",
}  # fmt: skip
CHANGES: Sequence[Mapping[str, Param]] = (
    {},
    {"guidance": 1.0},
    {"guidance": 3.0},
    {"steps": 1},
    {"steps": 2},
    {"steps": 10},
    {"tile": 16, "overlap": 8},
    {"tile": 24, "overlap": 8},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("weights", type=Path, nargs=2)
    parser.add_argument("--photos", type=int, default=12)
    arguments = parser.parse_args()
    pictures = held_out(arguments.source, arguments.photos)
    weights = {sha256(file.read_bytes()): file for file in arguments.weights}
    lpips = LPIPS("alexnet").eval()
    for shrink, codes in RATES:
        for change in CHANGES:
            params = {**DEFAULTS, "shrink": shrink, "codes": codes, **change}
            codec = load_perco(CodecSpec("perco", 1, params, tuple(weights)), weights, "cpu")
            print(
                f"1/{shrink}, {codes} codes, {dict(change) or 'defaults'}: {measured(codec, pictures, lpips)}",
                flush=True,
            )


def held_out(source: Path, count: int) -> list[Picture]:
    """Photographs that trainings leave out, and that have a caption."""
    place = locate(str(source))
    store = connect(place)
    found: list[Picture] = []
    for photo in list_photos(place)[::HELD_OUT]:
        pixels_hwc = read_photo(store, photo) if photo.caption else None
        if pixels_hwc is not None and len(found) < count:
            found.append(Picture(pixels_hwc, photo.caption))
    return found


@torch.inference_mode()
def measured(codec: PercoCodec, pictures: Sequence[Picture], lpips: LPIPS) -> str:
    encoded = codec.encode(pictures)
    captions = [image.caption for image in encoded]
    apart: dict[str, list[float]] = {}
    psnr = []
    for told, given in (
        ("own", captions),
        ("other", captions[1:] + captions[:1]),
        ("none", [""] * len(captions)),
    ):
        for image, caption, picture in zip(encoded, given, pictures, strict=True):
            (made,) = codec.decode([replace(image, caption=caption)])
            apart.setdefault(told, []).append(float(lpips(_planes(made), _planes(picture.pixels_hwc))))
            if told == "own":
                error = np.square(made.astype(float) - picture.pixels_hwc).mean()
                psnr.append(10 * np.log10(255**2 / error))
    better = np.array(apart["other"]) - np.array(apart["own"])
    told_all = ", ".join(f"{name} {np.mean(values):.4f}" for name, values in apart.items())
    return (
        f"{bits_a_pixel(encoded):.4f} bpp, PSNR {np.mean(psnr):.2f} dB, LPIPS {told_all}; own nearer by "
        f"{better.mean():.4f} ± {better.std() / len(better) ** 0.5:.4f}, in {(better > 0).sum()} of {len(better)}"
    )


def bits_a_pixel(encoded: Sequence[EncodedImage]) -> float:
    """Of all pictures together, without captions."""
    return sum(8 * len(image.bitstream) for image in encoded) / sum(i.height * i.width for i in encoded)


def _planes(pixels_hwc: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels_hwc)).permute(2, 0, 1)[None].float() / 127.5 - 1


if __name__ == "__main__":
    main()
