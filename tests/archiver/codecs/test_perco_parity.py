"""Hyper-encoder, quantiser and UNet against numbers that the public code of PerCo (SD) gave (perco_public.json).

How they were made: github.com/Nikolai10/PerCo at commit da3be39 with the versions of its requirements that the file
names, on a CPU, in fp32. The weights of its HyperEncoder(cfg_ss, cfg_cs), in eval mode, and of its UNet2DConditionModel
at a tiny width were set to `seeded.network_weights` of their own names and shapes, the inputs to `seeded.uniform`. Kept
are the public names and shapes, of each output all or every n-th number, and all indices; the latents were chosen among
40 such that the nearest two codes are never nearer than 1.7e-4 to each other in cosine. `sampler` is what the public
pipeline's loop gives with DDIM and classifier-free guidance, from embedded text.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from archiver.codecs.perco_import import GRID, RATES, public_name
from archiver.codecs.perco_networks import Perco, RateShape, Shape
from archiver.codecs.perco_sampling import Tiling, sampled, scaled_linear_levels, times_of
from tests.seeded import network_weights, uniform

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "perco_public.json").read_text())
GAIN = 0.7
APART = 1e-4

UNET: dict[str, Any] = REFERENCE["unet"]


def shapes_of(rate: str) -> dict[str, list[int]]:
    """Of a public hyper-encoder."""
    told = REFERENCE["hyper"][rate]
    shapes: dict[str, list[int]] = REFERENCE["hyper_layouts"][str(told["grid"])] | told["codebook"]
    return shapes


def public_weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    made = network_weights({name: tuple(shape) for name, shape in shapes.items()}, GAIN)
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in made.items()}


@cache
def network(rate: str) -> Perco:
    """Ours, with the public weights of a hyper-encoder of full width and of a tiny UNet."""
    config = UNET["config"] | {"in_channels": 4 + 320, "out_channels": 4}
    perco = Perco(Shape((RATES[rate],), config))
    public = {"hyper_enc": public_weights(shapes_of(rate)), "unet": public_weights(UNET["shapes"])}
    state = {}
    for ours, tensor in perco.state_dict().items():
        folder, theirs = public_name(ours)
        state[ours] = public[folder][theirs].reshape(tensor.shape)
    perco.load_state_dict(state)
    return perco.eval().requires_grad_(False)


def apart(ours: Tensor, theirs: list[float]) -> float:
    """At worst, over all or every n-th of the numbers."""
    flat = ours.flatten()
    step = max(1, len(flat) // len(theirs))
    return float((flat[::step][: len(theirs)] - torch.tensor(theirs)).abs().max())


@pytest.mark.parametrize("rate", RATES)
def test_hyper_encoder_and_quantiser_give_what_the_public_ones_give(rate: str) -> None:
    told = REFERENCE["hyper"][rate]
    latents = torch.from_numpy(uniform("latents 33", 2, 4, 16, 24)) * 2
    ours = network(rate).rate(0)
    z = ours.hyper(latents)
    indices = ours.vq.indices(z)
    assert apart(z, told["z"]) <= APART
    assert indices.flatten().tolist() == told["indices"]
    assert apart(ours.vq.embedded(indices), told["z_hat"]) <= APART
    assert len(set(told["indices"])) > 10  # not all the same


def test_the_unet_gives_what_the_public_one_gives() -> None:
    v = network("0.0019").velocity(
        torch.from_numpy(uniform("sample", 2, 4, 8, 12)) * 2,
        torch.from_numpy(uniform("local features", 2, 320, 4, 6)),
        torch.tensor([951, 41]),
        torch.from_numpy(uniform("text", 2, 5, 16)) * 2,
    )
    assert v.numel() == len(UNET["v"])
    assert apart(v, UNET["v"]) <= APART


def test_sampling_gives_what_the_public_pipeline_gives() -> None:
    """DDIM with classifier-free guidance; the public pipeline takes both pictures at once, we one after the other."""
    told = REFERENCE["sampler"]
    guidance: float = told["guidance"]
    perco = network("0.0019")
    noise, shown = uniform("noise", 2, 4, 8, 12) * 1.7, uniform("local features", 2, 320, 4, 6)
    text, none = (torch.from_numpy(uniform(name, 2, 5, 16)) * 2 for name in ("text", "no text"))
    times = times_of(told["steps"], "leading")
    made = []
    for number in range(2):
        z_hat, texts = torch.from_numpy(shown[number])[None], torch.stack((none[number], text[number]))

        def velocity(
            noisy: Tensor, _: object, time: int, z_hat: Tensor = z_hat, texts: Tensor = texts
        ) -> Tensor:
            both = noisy.expand(2, -1, -1, -1), z_hat.expand(2, -1, -1, -1), torch.tensor([time, time])
            without, with_text = perco.velocity(*both, texts).chunk(2)
            return without + guidance * (with_text - without)

        alone = torch.from_numpy(noise[number])[None]
        made.append(sampled(alone, velocity, scaled_linear_levels(), times, Tiling(64, 8)))
    assert apart(torch.cat(made), told["latents"]) <= APART


@pytest.mark.parametrize("rate", RATES)
def test_rates_are_the_public_ones(rate: str) -> None:
    told = REFERENCE["hyper"][rate]
    assert RATES[rate] == RateShape(GRID // told["grid"], told["codes"])
    assert set(RATES) == set(REFERENCE["hyper"])


def test_at_full_width_names_and_shapes_are_the_public_ones() -> None:
    """Nothing is missing, and nothing is left but what is not used."""
    big = REFERENCE["sd21_unet"]
    with torch.device("meta"):
        perco = Perco(Shape((RATES["0.0313"],), big["config"] | {"in_channels": 4 + 320}))
    public = {"hyper_enc": shapes_of("0.0313"), "unet": big["shapes"]}
    named = {public_name(ours): tuple(tensor.shape) for ours, tensor in perco.state_dict().items()}
    theirs = {
        (folder, name): tuple(shape) for folder, shapes in public.items() for name, shape in shapes.items()
    }
    unused = {
        ("unet", "conv_in.weight"),
        ("unet", "conv_in.bias"),
        ("hyper_enc", "quantizer._codebook.initted"),
    }
    assert set(theirs) - set(named) == unused
    for name, shape in named.items():
        assert theirs[name] in (shape, (1, *shape)), name
    parameters = sum(weight.numel() for weight in perco.unet.parameters())
    assert parameters == 866_844_164 - (4 * 9 + 1) * 320  # of the public one, without the frozen conv_in
