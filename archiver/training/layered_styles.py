"""After a training of `layered`: which directions a style has, and how its numbers spread.

A style changes the biases of all blocks at once. Its directions are the principal components of what photographs would
have changed there: of the slopes, by these biases, of what the encoder's descent lowers. A bias of steep slopes is one
to which what is drawn answers strongly, and moves less: slopes are divided by the root of their usual size before, and
components after.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from archiver.codecs.layered_blocks import Block
from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_style import load_judges
from archiver.precision import autocast
from archiver.training.layered import LayeredTask, Trained
from archiver.training.run import tensors_of
from archiver.training.stream import Arrays

UNIT = 1.0  # the length, over all biases together, of what 1 in a style changes


def blocks_of(enhancer: Enhancer) -> list[tuple[str, Block]]:
    """All blocks that draw, by name: those whose biases a style changes."""
    return [
        (name, part)
        for name, part in enhancer.named_modules()
        if isinstance(part, Block) and not name.startswith("observer.")
    ]


def slopes(task: LayeredTask, network: Trained, pairs: Iterable[Arrays], device: torch.device) -> Tensor:
    """By all biases: (pairs, biases), of crops of one photograph each."""
    judges, found = load_judges(device), []
    network.eval().requires_grad_(False)
    biases = [block.told.bias.requires_grad_(True) for _, block in blocks_of(network.enhancer)]
    for number, arrays in enumerate(pairs):
        batch = task.prepared(tensors_of(arrays, device), torch.Generator().manual_seed(number))
        with autocast(device):
            made, target = (task.inner(x) for x in (task.generated(network, batch), batch["target"]))
            with torch.no_grad():
                real = judges.real(target)
            apart = judges.apart(made, target, real)
        found.append(torch.cat([slope.float().cpu() for slope in torch.autograd.grad(apart, biases)]))
    network.requires_grad_(False)
    return torch.stack(found)


def directions(slopes: Tensor, count: int) -> Tensor:
    """Principal components (count, biases), of length 1; a photograph of large slopes counts less than they are.

    After 8 steps on ten held-out pairs at 1/2 (a script of the day), DISTS was 0.203 without a style and 0.175, 0.171,
    0.166 and 0.164 with the first 32, 64, 96 and 160 of them, of 880 slopes; 0.179 with 32 components of slopes as they
    are, 0.191 of slopes and biases divided by all of their usual size.
    """
    root = slopes.square().mean(0).sqrt().clamp(min=1e-12).sqrt()
    scaled = slopes / root
    scaled = scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
    # As sums of slopes, not from Vh: what rounding leaves there of biases without slopes, `root` would blow up.
    left = torch.linalg.svd(scaled, full_matrices=False).U[:, :count]
    return nn.functional.normalize(left.T @ scaled / root, dim=1)


@torch.no_grad()
def with_style(enhancer: Enhancer, along: Tensor, cells: int = 0) -> Enhancer:
    """One that draws the same with a style of zeros; `along` (style, biases); `cells`: see Shape.style_cells."""
    styled = Enhancer(replace(enhancer.shape, style=len(along), style_cells=cells))
    styled.load_state_dict(enhancer.state_dict(), strict=False)
    parts = torch.split(along * UNIT, [len(block.told.bias) for _, block in blocks_of(enhancer)], 1)
    for (_, block), part in zip(blocks_of(styled), parts, strict=True):
        assert block.styled is not None
        block.styled.weight.copy_(part.T)
    place = next(enhancer.parameters()).device
    return styled.eval().requires_grad_(False).to(place)
