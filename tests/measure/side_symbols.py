"""What the side symbols of `layered` presets take, and how much nearer they bring pictures.

    python -m tests.measure.side_symbols FOLDER PRESET...

LPIPS-Alex and DISTS with the picture's own symbols and style, with a style of zeros, with symbols that are all zero,
and with those of the picture upside down: a network that is used to symbols fares worse without them than one that
never had any. bf16, good to 0.002.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from archiver.codecs import load_codec
from archiver.codecs.layered import LayeredCodec
from archiver.codecs.layered_base import join, split
from archiver.codecs.layered_side import Side
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from manifests.records import EncodedImage
from pipelines.codec import Picture
from tests.measure.learned_presets import Judge, pictures


def with_side(codec: LayeredCodec, encoded: EncodedImage, side: Side) -> EncodedImage:
    """The same base with other side bytes."""
    assert codec.coder is not None
    told = codec.coder.pack(side, codec.scale, codec.quality)
    return replace(encoded, bitstream=join(told, split(encoded.bitstream)[1]))


@torch.inference_mode()
def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    judge = Judge()
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    codecs = {name: load_codec(find_preset(name).spec, shipped_weights(), "cpu") for name in names}
    for original in pictures(folder):
        judge.look(original)
        for name, codec in codecs.items():
            assert isinstance(codec, LayeredCodec)
            (own,) = codec.encode([Picture(original, None)])
            side = codec.observed(original)
            upside_down = np.ascontiguousarray(side.symbols_chw[:, ::-1])
            others = [
                replace(side, style=0 * side.style),
                replace(side, symbols_chw=0 * side.symbols_chw),
                replace(side, symbols_chw=upside_down),
            ]
            told = [own, *(with_side(codec, own, other) for other in others)]
            distances = [x for decoded in codec.decode(told) for x in judge.judged(decoded)[:2]]
            bits = (
                8 * len(part) / original[..., 0].size for part in (own.bitstream, split(own.bitstream)[0])
            )
            rows[name].append((*bits, *distances))
    print(
        f"{'preset':16} {'bpp':>8} {'side':>8}   LPIPS, DISTS: own; no style; symbols 0; another's"
        f"   {len(rows[names[0]])} pictures"
    )
    for name, found in rows.items():
        bpp, side, *distances = np.mean(found, axis=0)
        print(f"{name:16} {bpp:8.4f} {side:8.4f}   " + "  ".join(f"{distance:.3f}" for distance in distances))


if __name__ == "__main__":
    main()
