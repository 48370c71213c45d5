"""What the DISTS of presets' pictures is made of, by the stages of VGG: means of features, and how they vary.

    python -m tests.measure.feature_means FOLDER PRESET...

For each stage, from the pixels on, and as means over the pictures: what means of features take off similarity, what
their variances and covariances take off, and how far the reconstruction's features lie above the original's (mean
logarithm of the ratio of means, weighted as DISTS weighs them; features of a mean below 0.001 count little).
"""

import sys
from pathlib import Path

import torch

from archiver.codecs import load_codec
from archiver.perception.dists import DISTS
from archiver.presets import find_preset
from archiver.weights import shipped_weights
from pipelines.codec import Picture
from tests.measure.learned_presets import pictures, planes

LEAST = 1e-3  # added to means before their ratio is taken


@torch.inference_mode()
def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    dists = DISTS().eval()
    alpha = dists.get_buffer("alpha")
    for name in names:
        codec = load_codec(find_preset(name).spec, shipped_weights(), "cpu")
        means, others, above = [], [], []
        for original in pictures(folder):
            (decoded,) = codec.decode(codec.encode([Picture(original, None)]))
            before, after = (dists.taps(planes(pixels)) for pixels in (original, decoded))
            moments = dists.moments(before, after)
            structure, texture = dists.lacks(moments)
            ratio = torch.log((moments[1, 0] + LEAST) / (moments[0, 0] + LEAST))
            sizes = [tap.shape[1] for tap in before]
            of_means, of_others, weighted, weight = (
                torch.stack([part.sum() for part in torch.split_with_sizes(values, sizes)])
                for values in (structure[0], texture[0], ratio * alpha, alpha)
            )
            means.append(of_means)
            others.append(of_others)
            above.append(weighted / weight)
        print(f"{name}, {len(means)} pictures: stage, means, variances and covariances, ratio")
        for stage, row in enumerate(
            zip(*(torch.stack(c).mean(0).tolist() for c in (means, others, above)), strict=True)
        ):
            print("  {}  {:.4f}  {:.4f}  {:+5.3f}".format(stage, *row), flush=True)


if __name__ == "__main__":
    main()
