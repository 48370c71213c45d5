"""The largest of each artefact of presets' pictures: what the limits of archiver/evaluation/artefacts.py rest on.

    python -m tests.measure.artefacts SOURCE [SOURCE ...] [--codec PRESET ...] [--gan FILE] [--kinds] [--count N]

Without --codec and --gan: all presets that come with their weights, but for those that read captions. --gan: weights
of the `gan` codec that no preset names yet, at the rates they are trained for. --kinds: noise, flat, checkerboard, text
and other made pictures, too, whole and as a line of pixels.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from archiver.codecs import load_codec
from archiver.evaluation.artefacts import LIMITS, Artefacts, artefacts, exceeded
from archiver.presets import PRESETS, find_preset
from archiver.training.gan import RATES
from archiver.weights import local_weights
from pipelines.codec import Codec, Picture, Pixels
from pipelines.images import read_image
from tests.measure.selective import gan_of
from tests.samples import KINDS


def line(name: str, found: list[Artefacts]) -> str:
    cells = []
    for field in vars(LIMITS):
        values = np.array([getattr(one, field) for one in found])
        cells.append(
            f"{field} {np.median(values):.3f} / {np.percentile(values, 95):.3f} / {values.max():.3f}"
        )
    return f"{name:14}  " + "   ".join(cells)


def asked(presets: Sequence[str], gan: Path | None) -> Iterator[tuple[str, Codec]]:
    """Codecs by name; all that can be had where none is named."""
    here = local_weights()
    if not presets and gan is None:
        presets = [
            preset.name
            for preset in PRESETS
            if not (preset.reads_caption or preset.imported) and here.keys() >= set(preset.spec.weights)
        ]
    for name in presets:
        yield name, load_codec(find_preset(name).spec, here, "cpu")
    if gan is not None:
        yield from ((f"gan C={channels}", gan_of(gan, channels)) for channels in RATES)


def originals(sources: Sequence[Path], count: int, kinds: bool) -> Iterator[tuple[str, Pixels]]:
    """So many of each folder, or all: every n-th by name, n their number // count."""
    for source in sources:
        found = sorted(file for file in source.iterdir() if file.suffix in (".avif", ".png", ".jpg"))
        for file in found[:: max(1, len(found) // count)][:count]:
            yield file.name, read_image(file.read_bytes()).pixels_hwc
    for name, kind in KINDS.items() if kinds else ():
        yield name, kind(384, 512)
        yield f"{name}, a line", kind(1, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*")
    parser.add_argument("--codec", action="append", default=[], metavar="PRESET")
    parser.add_argument("--gan", type=Path, metavar="FILE")
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--count", type=int, default=24, help="pictures at most, of each source")
    given = parser.parse_args()
    pictures = list(originals(given.sources, given.count, given.kinds))
    print(f"{len(pictures)} pictures: median / 95 % / largest")
    for name, codec in asked(given.codec, given.gan):
        several = []
        for file, original in pictures:
            (decoded,) = codec.decode(codec.encode([Picture(original, None)]))
            several.append(artefacts(original, decoded))
            if bad := exceeded(several[-1]):
                print(f"{name}  {file}: {', '.join(bad)} too large:", several[-1])
        print(line(name, several), flush=True)
    print(line("limits", [LIMITS]))


if __name__ == "__main__":
    main()
