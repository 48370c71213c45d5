"""The networks of the `gan` codec: pixels -> symbols, symbols and labels -> pixels.

The embedded layout is made for CPUs: inverted residual blocks at 1/4, 1/8 and 1/16 of the size, no statistics of
the picture (so that tiles equal the whole), and two last doublings with 3x3 convolutions at 1/2 and at full size.
Beside the blocks a linear way leads from pixels to symbols and back, which begins as the lowest frequencies of a cosine
transform: training then begins at a picture, where from random weights it takes long to come to one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archiver.codecs.drawing import bent, enlarged, joined
from archiver.codecs.gan_paper import PaperEncoder, PaperGenerator
from archiver.codecs.label_maps import RANK_CONTEXTS, RANKS
from archiver.codecs.symbols import LEVELS, STATES

# Legend of suffixes: B batch, C channels of w_hat; H, W pixels; h, w cells of 16x16 pixels.

CELL = 16  # pixels
# How far networks see around a cell, in cells, at the depth of `Shape()`: what tiles have to overlap by.
ENCODER_REACH, THOUGHT_REACH, DRAWN_REACH = 6, 13, 4
CONTEXT = 4  # neighbours that a symbol's table is chosen by


@dataclass(frozen=True)
class Shape:
    """Width and depth; `paper` 1 for the layout of gan_paper.py, which has no use for the middle three."""

    channels: int = 8  # C at the highest rate
    labels: int = 32  # kinds of surface that can be synthesised
    width: int = 64  # channels at 1/4 (paper: at full size); twice that at 1/8, four times at 1/16
    blocks: int = 6  # at 1/16
    paper: int = 0


class Block(nn.Module):
    """(B, C, h, w) -> the same: 1x1 to twice the channels, depthwise convolution, 1x1; told the condition, if any."""

    def __init__(self, channels: int, size: int = 3, condition: int = 0) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.told = nn.Linear(condition, 2 * channels) if condition else None
        self.mix = nn.Conv2d(2 * channels, 2 * channels, size, padding=size // 2, groups=2 * channels)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        if self.told is not None:
            nn.init.zeros_(self.told.weight)
            nn.init.zeros_(self.told.bias)
        with torch.no_grad():
            self.narrow.weight.mul_(0.3)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        wide = self.widen(x)
        if self.told is not None and condition is not None:
            wide = wide + self.told(condition)[:, :, None, None].to(wide.dtype)
        out: Tensor = x + self.narrow(bent(self.mix(bent(wide))))
        return out


def cosines(count: int, side: int) -> Tensor:
    """(count, 3, side, side): the cosines of luma and chroma that vary most over photographs, largest first.

    An orthonormal transform of 16x16 cells in [-1, 1] has coefficients of about these standard deviations: 7.4 for the
    mean of luma and 1.8 / (u + v) for its other frequencies, 2.0 and 0.45 / (u + v) for chroma. Each is divided by
    its own.
    """
    planes = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
    places = (torch.arange(side) + 0.5) / side
    found = []
    for plane, (mean, others) in enumerate(((7.4, 1.8), (2.0, 0.45), (2.0, 0.45))):
        for u in range(4):
            for v in range(4):
                deviation = mean if u + v == 0 else others / (u + v)
                wave = torch.cos(torch.pi * u * places)[:, None] * torch.cos(torch.pi * v * places)
                wave = wave * (2 ** ((u > 0) + (v > 0))) ** 0.5 / CELL
                found.append((deviation, planes[plane][:, None, None] * wave))
    found.sort(key=lambda pair: -pair[0])
    return torch.stack([wave * (1 / deviation) for deviation, wave in found[:count]])


def inverse_cosines(count: int, side: int) -> Tensor:
    """(count, 3, side, side): the pictures, of cells of `side` pixels, that `cosines` give 1 and 0 for the rest."""
    analysis = cosines(count, CELL).flatten(1)
    synthesis = torch.linalg.pinv(analysis).T.unflatten(1, (3, CELL, CELL))
    return F.avg_pool2d(synthesis, CELL // side)


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, channels, H/16, W/16), not yet quantised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, width, 3, padding=1),
            Block(width),
            nn.Conv2d(width, 2 * width, 2, stride=2),
            Block(2 * width),
            Block(2 * width),
            nn.Conv2d(2 * width, 4 * width, 2, stride=2),
            Block(4 * width),
            Block(4 * width),
            Block(4 * width),
            nn.Conv2d(4 * width, shape.channels, 3, padding=1),
        )
        self.linear = nn.Conv2d(3, shape.channels, CELL, CELL, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(cosines(shape.channels, CELL))

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.linear(pixels) + self.layers(pixels)
        return out


class Generator(nn.Module):
    """Planes (B, `planes`, h, w), how far of the channels are there (B, 1), noise -> (B, 3, 16 h, 16 w)."""

    CONDITION = 32

    def __init__(self, shape: Shape, planes: int) -> None:
        super().__init__()
        width, told = shape.width, self.CONDITION
        self.condition = nn.Sequential(nn.Linear(1, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.stem = nn.Conv2d(planes, 4 * width, 3, padding=1)
        self.deep = nn.ModuleList(Block(4 * width, 5, told) for _ in range(shape.blocks))
        self.up1 = nn.Conv2d(4 * width, 4 * 2 * width, 1)
        self.middle = nn.ModuleList(Block(2 * width, 3, told) for _ in range(3))
        self.coarse = nn.Conv2d(2 * width, 3, 1)
        self.up2 = nn.Conv2d(2 * width, 4 * width, 1)
        self.join = nn.Conv2d(width + 1, width, 3, padding=1)
        self.fine = nn.ModuleList(Block(width, 3, told) for _ in range(2))
        self.channels = shape.channels
        self.linear = nn.ConvTranspose2d(shape.channels, 3, 4, 4, bias=False)  # to 1/4
        self.quarter = nn.Conv2d(width, 3, 1)
        self.double1 = nn.Conv2d(width, 4 * 32, 1)
        self.at_half = nn.Conv2d(32 + 3, 32, 3, padding=1)
        self.double2 = nn.Conv2d(32, 4 * 16, 1)
        self.at_full = nn.Conv2d(16 + 3 + 1, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 3, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.coarse.weight.mul_(0.1)
            self.quarter.weight.mul_(0.1)
            self.linear.weight.copy_(inverse_cosines(shape.channels, 4))

    def forward(self, planes_bchw: Tensor, told: Tensor, noise_quarter: Tensor, noise_HW: Tensor) -> Tensor:
        return self.drawn(self.thought(planes_bchw, told), told, noise_quarter, noise_HW)

    def thought(self, planes_bchw: Tensor, told: Tensor) -> Tensor:
        """All that happens at 1/16, and the symbols; a cell sees no further than `THOUGHT_REACH` cells."""
        condition = self.condition(told)
        x = bent(self.stem(planes_bchw))
        for block in self.deep:
            x = block(x, condition)
        return torch.cat((x, planes_bchw[:, : self.channels].to(x.dtype)), 1)

    def sketched(self, planes_bchw: Tensor, told: Tensor) -> Tensor:
        """The picture at 1/8, of which `drawn` makes the full one."""
        _, coarse, linear = self._middle(self.thought(planes_bchw, told), self.condition(told))
        return coarse + F.avg_pool2d(linear, 2)

    def drawn(self, x: Tensor, told: Tensor, noise_quarter: Tensor, noise_HW: Tensor) -> Tensor:
        """From 1/16 to full size; a pixel sees no further than `DRAWN_REACH` cells."""
        condition = self.condition(told)
        x, coarse, linear = self._middle(x, condition)
        x = F.pixel_shuffle(self.up2(x), 2)
        x = self.join(joined(x, noise_quarter.to(x.dtype)))
        for block in self.fine:
            x = block(x, condition)
        quarter = enlarged(coarse, 2) + linear + self.quarter(x).float()
        x = bent(F.pixel_shuffle(self.double1(x), 2))
        x = bent(self.at_half(joined(x, enlarged(quarter, 2).to(x.dtype))))
        x = bent(F.pixel_shuffle(self.double2(x), 2))
        base = enlarged(quarter, 4)
        x = bent(self.at_full(joined(x, base.to(x.dtype), noise_HW.to(x.dtype))))
        out: Tensor = base + self.out(x).float()
        return out

    def _middle(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """1/16 -> features at 1/8, the picture in them, and to be added to it the linear picture at 1/4."""
        symbols = x[:, -self.channels :]
        x = F.pixel_shuffle(self.up1(x[:, : -self.channels]), 2)
        for block in self.middle:
            x = block(x, condition)
        return x, self.coarse(x).float(), self.linear(symbols).float()


class Gan(nn.Module):
    """Both networks, the label palette and the coding tables: all that a weights file holds."""

    LABEL_PLANES = 16

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        planes = shape.channels + self.LABEL_PLANES + 16
        self.encoder: Encoder | PaperEncoder
        self.generator: Generator | PaperGenerator
        if shape.paper:
            self.encoder = PaperEncoder(shape.width, shape.channels)
            self.generator = PaperGenerator(shape.width, planes, shape.blocks)
        else:
            self.encoder, self.generator = Encoder(shape), Generator(shape, planes)
        self.embed = nn.Embedding(shape.labels + 1, self.LABEL_PLANES)  # 0: this cell is coded
        self.register_buffer("palette", torch.zeros(shape.labels, 5))  # see gan_labels.py
        # Tables of symbols.py and label_maps.py; training leaves them empty, training/gan_fit.py fills them.
        tables = {
            "neighbours": (shape.channels, CONTEXT, 3),
            "tables": (shape.channels, STATES**CONTEXT, LEVELS),
            "ranks": (RANK_CONTEXTS, RANKS),
            "labels": (1, shape.labels + 1),
        }
        for name, size in tables.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.int16))

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W whole cells -> (B, channels, h, w) in about [-2.4, 2.4]."""
        # Beyond the outermost centres the slope of `quantised` vanishes: keep away from there.
        bounded: Tensor = 2.4 * torch.tanh(self.encoder(pixels).float() / 2.4)
        return bounded

    def decode(
        self, w_hat: Tensor, labels_bhw: Tensor, channels: Tensor, noise_quarter: Tensor, noise_HW: Tensor
    ) -> Tensor:
        """(B, channels, h, w) centres -> (B, 3, H, W) around [-1, 1].

        Of picture b the first `channels[b]` channels are there, in cells of label 0. Noise is (B, 1, H/4, W/4)
        and (B, 1, H, W).
        """
        planes, told = self.planes(w_hat, labels_bhw, channels, noise_quarter), told_of(channels)
        if isinstance(self.generator, Generator):
            made: Tensor = self.generator(planes, told, noise_quarter, noise_HW)
        else:
            made = self.generator(planes, told)
        return made

    def planes(self, w_hat: Tensor, labels_bhw: Tensor, channels: Tensor, noise_quarter: Tensor) -> Tensor:
        """What the generator sees at 1/16, (B, planes, h, w)."""
        shown = w_hat * there(labels_bhw, channels, self.shape.channels)
        embedded = self.embed(labels_bhw).permute(0, 3, 1, 2)
        return torch.cat((shown, embedded, F.pixel_unshuffle(noise_quarter, 4)), 1)


def told_of(channels: Tensor) -> Tensor:
    """(B,) -> (B, 1): the rate, as the generator is told it."""
    return channels[:, None].float().log2() - 2


def there(labels_bhw: Tensor, channels: Tensor, most: int) -> Tensor:
    """(B, most, h, w): 1 where a symbol is coded, 0 elsewhere."""
    first = torch.arange(most, device=channels.device)[None, :] < channels[:, None]
    return (first[:, :, None, None] & (labels_bhw == 0)[:, None]).float()


def quantised(w: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centres, with the slope of the soft assignment (temperature 1), and that assignment (..., LEVELS)."""
    centres = torch.arange(LEVELS, device=w.device, dtype=w.dtype) - LEVELS // 2
    share = torch.softmax(-((w[..., None] - centres) ** 2), -1)
    soft = (share * centres).sum(-1)
    hard = w.round().clamp(-(LEVELS // 2), LEVELS // 2)
    return soft + (hard - soft).detach(), share
