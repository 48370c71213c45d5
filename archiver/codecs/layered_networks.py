"""The networks of the `layered` codec, as a weights file holds them: base and side symbols -> a picture.

The enhancer works at 1/4, 1/8 and 1/16 of the size, told scale and quality of the base, and ends in two sub-pixel
doublings (Shi et al., CVPR 2016) that also see the enlarged base. Beside it: the observer that finds the symbols
(layered_observer.py), and their entropy model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import bent, enlarged, joined
from archiver.codecs.latent_model import Integers
from archiver.codecs.layered_blocks import ROWS, Block, Condition, in_rows
from archiver.codecs.layered_observer import Observer
from archiver.codecs.layered_shape import BANDS, CONTEXT_WIDTH, SCALES, SLICES, Shape
from archiver.codecs.layered_side import Styles

# Legend of suffixes: B batch, C channels; H, W pixels; h, w cells, of 4x4 pixels where nothing else is said.


class Deep(nn.Module):
    """The level at 1/16: features at 1/8 (B, coarse, 2 h, 2 w), side symbols (B, side, h, w) -> features, added to.

    Where nothing learns, in place.
    """

    def __init__(self, shape: Shape, condition: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(shape.coarse, shape.deep, 2, stride=2)
        self.side = nn.Conv2d(shape.side, shape.deep, 3, padding=1) if shape.side else None
        if self.side is not None and shape.edges:
            self.side.padding_mode = "replicate"
        self.blocks = nn.ModuleList(
            Block(shape.deep, condition, bool(shape.edges), shape.style) for _ in range(shape.deep_blocks)
        )
        self.up = nn.Conv2d(shape.deep, 4 * shape.coarse, 1)
        with torch.no_grad():
            self.up.weight.mul_(0.1)

    def forward(self, coarse: Tensor, side: Tensor | None, condition: Tensor) -> Tensor:
        x = self.down(coarse)
        if self.side is not None:
            x = x + self.side(side)
        for block in self.blocks:
            x = in_rows(block, x, condition)
        if torch.is_grad_enabled():
            return coarse + F.pixel_shuffle(self.up(x), 2)
        for part, known in zip(torch.split(x, ROWS, 2), torch.split(coarse, 2 * ROWS, 2), strict=True):
            known += F.pixel_shuffle(self.up(part), 2)
        return coarse


class Enhancer(nn.Module):
    """Small pictures and side symbols -> full ones: (B, 3, H, W) around [-1, 1], H and W whole cells."""

    CONDITION = 32

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.side and not shape.deep_blocks:
            raise ValueError(f"{shape.side} planes of side symbols and no level at 1/16 to read them")
        if shape.style and not shape.side:
            raise ValueError(f"a style of {shape.style} numbers and no side symbols, beside which it is told")
        self.shape = shape
        fine, coarse, told = shape.fine, shape.coarse, self.CONDITION
        self.condition = Condition(told)
        self.stems = nn.ModuleDict(
            {str(scale): nn.Conv2d((12 if scale == 2 else 3) + 1, fine, 3, padding=1) for scale in SCALES}
        )
        self.before = nn.ModuleList(Block(fine, told, style=shape.style) for _ in range(shape.fine_blocks))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.inside = nn.ModuleList(
            Block(coarse, told, bool(shape.edges), shape.style) for _ in range(shape.coarse_blocks)
        )
        self.deep = Deep(shape, told) if shape.deep_blocks else None
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = nn.ModuleList(Block(fine, told, style=shape.style) for _ in range(shape.fine_blocks))
        self.double1 = nn.Conv2d(fine, 4 * 32, 1)
        self.at_half = nn.Conv2d(32 + 3, 32, 3, padding=1)
        self.double2 = nn.Conv2d(32, 4 * 16, 1)
        self.at_full = nn.Conv2d(16 + 3 + 1, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 3, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
        self.observer = Observer(shape) if shape.side else None
        # Entropy models; training leaves them empty, `archiver.training.layered.fitted` fills them.
        self.entropy = (
            Integers(shape.side, SLICES, len(SCALES) * BANDS, CONTEXT_WIDTH) if shape.side else None
        )
        self.styles = Styles(shape.style) if shape.style else None

    def forward(
        self,
        small: Tensor,
        side: Tensor | None,
        scale: int,
        told: Tensor,
        noise_hw: Tensor,
        noise_HW: Tensor,
    ) -> Tensor:
        """`small` (B, 3, H/scale, W/scale) in [-1, 1]; `side` (B, side, H/16, W/16), whole numbers from -15 to 15.

        `told` (B, TOLD), see `conditions`, and perhaps the first numbers of a style behind it; `noise_hw`
        (B, 1, H/4, W/4) and `noise_HW` (B, 1, H, W) of unit variance.
        """
        x = self.begun(small, scale, told, noise_hw)
        return self.drawn(x, self.thought(self.lowered(x), side, told), small, scale, told, noise_HW)

    def begun(self, small: Tensor, scale: int, told: Tensor, noise_hw: Tensor) -> Tensor:
        """Features at 1/4: (B, fine, H/4, W/4)."""
        condition = self.condition(told)
        x = F.pixel_unshuffle(small, 2) if scale == 2 else small
        if scale == 8:
            x = enlarged(small, 2)
        features: Tensor = self.stems[str(scale)](joined(x, noise_hw))
        for block in self.before:
            features = block(features, condition)
        return features

    def lowered(self, x: Tensor) -> Tensor:
        """Features at 1/8 that `thought` begins with; with `begun` it sees DRAWN_REACH cells around."""
        coarse: Tensor = self.down(x)
        return coarse

    def thought(self, coarse: Tensor, side: Tensor | None, told: Tensor) -> Tensor:
        """Features at 1/8, which see all of the picture that so many blocks reach; in place, where nothing learns."""
        condition = self.condition(told)
        for number, block in enumerate(self.inside):
            if self.deep is not None and number == len(self.inside) // 2:
                coarse = self.deep(coarse, side, condition)
            coarse = in_rows(block, coarse, condition)
        return coarse

    def drawn(
        self, x: Tensor, coarse: Tensor, small: Tensor, scale: int, told: Tensor, noise_HW: Tensor
    ) -> Tensor:
        """The picture, of features at 1/4 and 1/8; with `begun` it sees DRAWN_REACH cells around."""
        condition = self.condition(told)
        x = x + F.pixel_shuffle(self.up(coarse), 2)
        for block in self.after:
            x = block(x, condition)
        x = bent(F.pixel_shuffle(self.double1(x), 2))
        x = joined(x, enlarged(small, scale // 2))  # apart: what was joined is let go before the next layer
        x = bent(self.at_half(x))
        x = bent(F.pixel_shuffle(self.double2(x), 2))
        base = enlarged(small, scale)
        x = joined(x, base, noise_HW)
        x = bent(self.at_full(x))
        out: Tensor = base + self.out(x).float()
        return out
