"""Peak memory of `perco-sd` decoding, measured on the CPU with networks of Stable Diffusion 2.1's layout, narrower.

    python -m tests.measure.perco_memory            all cases, each in a process of its own

Activations go with the channels: those of a UNet and autoencoder of `1 / NARROWER` of the channels are that part of the
full networks'. What is printed is how far memory rises above what the loaded networks take, and that times NARROWER.
"""

import resource
import subprocess
import sys

import torch

from archiver.codecs.perco import PASS, PercoCodec, params_of
from archiver.codecs.perco_networks import Perco, RateShape, Shape
from archiver.codecs.perco_spaces import StableDiffusionSpace, WordReader
from archiver.codecs.perco_text import TextShape, to_ids
from archiver.presets import find_preset
from manifests.records import EncodedImage

NARROWER = 8
CASES = ((512, 512), (1024, 1024), (1536, 2048))  # height, width


def codec() -> PercoCodec:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    wide = [320 // NARROWER, 640 // NARROWER, 1280 // NARROWER, 1280 // NARROWER]
    shape = Shape(
        rates=(RateShape(2, 256),),
        unet={
            "in_channels": 4 + 320,
            "out_channels": 4,
            "block_out_channels": wide,
            "attention_head_dim": [5, 5, 5, 5],
            "norm_num_groups": 8,
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        text=TextShape(words=1, list_bytes=1, tokens=77, channels=1024, layers=1),
    )
    network = Perco(shape).eval().requires_grad_(False)
    autoencoder = AutoencoderKL(
        block_out_channels=[128 // NARROWER, 256 // NARROWER, 512 // NARROWER, 512 // NARROWER],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
    )
    torch.nn.Module.requires_grad_(autoencoder, False)
    preset = find_preset("perco-sd-0.0313")
    params = params_of({**preset.spec.params, "steps": 1})
    assert network.text is not None
    return PercoCodec(
        preset.spec,
        params,
        network,
        network.rate(0),
        None,
        StableDiffusionSpace(autoencoder),
        WordReader(to_ids(["a"], 77), network.text),
        torch.device("cpu"),
    )


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    if len(sys.argv) == 1:
        print(f"{PASS} tiles of 64 x 64 cells at a time, with guidance; 1 / {NARROWER} of the channels, fp32")
        for height, width in CASES:
            subprocess.run(
                [sys.executable, "-m", "tests.measure.perco_memory", str(height), str(width)], check=True
            )
        return
    height, width = map(int, sys.argv[1:])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    made = codec()
    y, x = made.grid(height, width)
    image = EncodedImage(made.pack(torch.randint(0, 256, (y, x)).numpy()), "a", height, width)
    loaded = peak()
    (pixels_hwc,) = made.decode([image])
    assert pixels_hwc.shape == (height, width, 3)
    rise = (peak() - loaded) / 1e9
    print(
        f"{height} x {width}: {rise:.2f} GB above the networks, {rise * NARROWER:.1f} GB at full width",
        flush=True,
    )


if __name__ == "__main__":
    main()
