"""The largest of each artefact on originals and on AVIF: what the limits of archiver/evaluation/artefacts.py rest on.

python tests/measure/artefacts.py SOURCE [SOURCE ...] [--count N]
"""

import argparse
from pathlib import Path

import numpy as np

from archiver.codecs import load_codec
from archiver.evaluation.artefacts import LIMITS, Artefacts, artefacts
from archiver.presets import PRESETS
from pipelines.codec import Picture
from pipelines.images import read_image


def line(name: str, found: list[Artefacts]) -> str:
    cells = []
    for field in vars(LIMITS):
        values = np.array([getattr(one, field) for one in found])
        cells.append(
            f"{field} {np.median(values):.3f} / {np.percentile(values, 95):.3f} / {values.max():.3f}"
        )
    return f"{name:10}  " + "   ".join(cells)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("source", type=Path, nargs="+")
    arguments.add_argument("--count", type=int, default=24, help="pictures at most, of each source")
    given = arguments.parse_args()
    files: list[Path] = []
    for source in given.source:
        found = sorted(file for file in source.iterdir() if file.suffix in (".avif", ".png", ".jpg"))
        files += found[:: max(1, len(found) // given.count)][: given.count]
    originals = [read_image(file.read_bytes()).pixels_hwc for file in files]
    print(f"{len(originals)} pictures: median / 95 % / largest")
    for preset in PRESETS:
        codec = load_codec(preset.spec, {}, "cpu")
        several = []
        for file, original in zip(files, originals, strict=True):
            (decoded,) = codec.decode(codec.encode([Picture(original, None)]))
            one = artefacts(original, decoded)
            several.append(one)
            if one.grid > LIMITS.grid or one.seam > LIMITS.seam or one.border > LIMITS.border:
                print(file.name, one)
        print(line(preset.name, several), flush=True)
    print(line("limits", [LIMITS]))


if __name__ == "__main__":
    main()
