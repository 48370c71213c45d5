"""The `perco` codec: a few indices and a caption, from which a diffusion model draws the picture.

    pixels ->[pad]-> ->[autoencoder]-> latents ->[hyper-encoder]-> z ->[vq]-> indices ->[model or digits]-> bitstream
    bitstream, caption -> z_hat, text ->[UNet, DDIM from noise]-> latents ->[autoencoder]-> pixels

After Careil et al., "Towards image compression with perfect realism at ultra-low bitrates", ICLR 2024. Taken from it:
the vector-quantised hyper-latent that is enlarged and shown to the UNet beside the noisy latent, captions by
cross-attention, the rates, v-prediction, classifier-free guidance, few steps. Departures:
- pictures keep their size and shape, where the authors squash them to 512 x 512: they are padded to whole cells, and
  drawn in overlapping tiles where they are larger than `tile` (perco_sampling.py);
- indices can be entropy-coded (perco_indices.py); the paper's uniform code is there too, exact for any codebook;
- the first noise comes from Philox keyed by a hash of the bitstream, so that a picture's pixels are its own;
- DDIM of embedded presets ends at the clean latents, that of Stable Diffusion where its own scheduler does;
- embedded presets: the same design in the latents of a small autoencoder of our own, with noise levels that end in
  noise alone, a small text encoder trained with the UNet, and one UNet for all rates.

The bitstream is the indices alone. Sizes, to whole cells of `shrink` latent cells and at least 2x2 latent cells, and
the caption are the caller's. Captions are stored as they are read: `encode` cuts a longer one after its last whole word
that is read, `decode` refuses one that is longer.

Parameters of the spec: `latents` ("embedded": two weights files, the codec's and the autoencoder's; "stable-diffusion":
also a text encoder's), `shrink` and `codes` (which of the weights' rates), `indices` ("model" or "digits"), `captions`
(whether they are read), `levels`, `spacing`, `steps`, `guidance` (1: without), `tile` and `overlap` (latent cells),
`precision` ("fp32" or "bf16", of the networks that draw; what indices are is decided in fp32, once, by `encode`).

Memory at its peak: the weights, and the larger of what the UNet needs for PASS tiles and the autoencoder for one, and
about 60 bytes a pixel of the whole picture. For Stable Diffusion 2.1 in fp32, counted from its layers: weights 5.2 GB
(866, 84 and 340 million numbers); the UNet 0.08 GB for a tile of 64 x 64, that is 0.7 GB for 4 with guidance; the
autoencoder 1.1 GB for 512 x 512 pixels. In bf16 UNet and autoencoder take half. tests/measure/perco_memory.py measures
networks of this layout that are narrower: on a CPU, at an eighth of the channels, 512 x 512 pixels took 0.28 GB above
the networks, which is at most 2.2 GB at full width (what does not grow with the channels is counted eight times).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from archiver.codecs.autoencoder import load_autoencoder
from archiver.codecs.drawing import noise, normal
from archiver.codecs.networks import load_network, weight_files
from archiver.codecs.perco_indices import (
    IndexCoder,
    load_indices,
    pack_digits,
    unpack_digits,
)
from archiver.codecs.perco_networks import Perco, Rate, shape_of
from archiver.codecs.perco_sampling import LEVELS, Corners, Levels, Tiling, sampled, times_of
from archiver.codecs.perco_spaces import EmbeddedSpace, Reader, Space, StableDiffusionSpace, WordReader
from archiver.codecs.perco_text import words_of
from archiver.codecs.specs import check_size, check_spec
from archiver.codecs.stable_diffusion import load_autoencoder_kl, load_text_encoder
from manifests.records import CodecSpec, EncodedImage, Param
from pipelines.codec import Picture, Pixels

# Legend of suffixes: C channels; H, W pixels, padded; h, w latent cells, y, x cells of the hyper-latent.

NAME = "perco"
VERSION = 1
PASS = 4  # tiles that the UNet sees at once; twice as many with guidance
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Params:
    """The parameters of a spec, each as the module's docstring tells."""

    latents: str
    shrink: int
    codes: int
    indices: str
    captions: bool
    levels: str
    spacing: str
    steps: int
    guidance: float
    tile: int
    overlap: int
    precision: str

    def __post_init__(self) -> None:
        _one_of("latents", self.latents, ("embedded", "stable-diffusion"))
        _one_of("indices", self.indices, ("model", "digits"))
        _one_of("levels", self.levels, tuple(LEVELS))
        _one_of("spacing", self.spacing, ("trailing", "leading"))
        _one_of("precision", self.precision, tuple(PRECISIONS))
        _between("steps", self.steps, 1, 1000)
        _between("guidance", self.guidance, 1, 30)
        _between("tile", self.tile, 8, 1024)
        _between("overlap", self.overlap, 0, self.tile // 2)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r}, expected one of {', '.join(known)}")


def _between(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} {value!r}, expected {least} to {most}")


def params_of(params: Mapping[str, Param]) -> Params:
    """ValueError for parameters that are not those of this codec."""
    known = {field.name: field.type for field in fields(Params)}
    for name in sorted(known.keys() ^ params.keys()):
        told = "without the parameter" if name in known else "with the parameter"
        raise ValueError(f"codec {NAME} {told} {name!r}, expected {', '.join(known)}")
    for name, value in params.items():
        kinds = (int, float) if known[name] is float else (known[name],)
        if type(value) not in kinds:
            raise ValueError(f"{name} {value!r}, expected {getattr(known[name], '__name__', known[name])}")
    return Params(**params)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PercoCodec:
    """A `Codec`; made by `load_perco`.

    One picture at a time, its tiles together: so batches change nothing, on GPUs too, whose kernels depend on how many
    pictures they are given.
    """

    spec: CodecSpec
    params: Params
    network: Perco
    rate: Rate
    coder: IndexCoder | None  # None: digits
    space: Space
    reader: Reader
    device: torch.device
    batch: int = 1

    @property
    def reads_caption(self) -> bool:
        return self.params.captions

    def encode(self, pictures: Sequence[Picture]) -> list[EncodedImage]:
        captions = [self._checked(picture.caption, cut=True) for picture in pictures]
        return [
            self._encoded(picture.pixels_hwc, caption)
            for picture, caption in zip(pictures, captions, strict=True)
        ]

    def decode(self, encoded: Sequence[EncodedImage]) -> list[Pixels]:
        # All that can be wrong is found before a network runs.
        indices = [self.unpack(one.bitstream, *self.grid(one.height, one.width)) for one in encoded]
        for one in encoded:
            self._checked(one.caption, cut=False)
        return [self._decoded(one, indices_yx) for one, indices_yx in zip(encoded, indices, strict=True)]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Pixels -> indices, rows and columns."""
        check_size(height, width)
        side = self.space.cell * self.params.shrink
        least = -(-2 // self.params.shrink)
        return max(least, -(-height // side)), max(least, -(-width // side))

    def pack(self, indices_yx: NDArray[np.int64]) -> bytes:
        """Indices -> bitstream, checked to say the same."""
        if self.coder is None:
            bitstream = pack_digits(indices_yx.ravel(), self.params.codes)
        else:
            bitstream = self.coder.encode(indices_yx)
        assert np.array_equal(self.unpack(bitstream, *indices_yx.shape), indices_yx)
        return bitstream

    def unpack(self, bitstream: bytes, y: int, x: int) -> NDArray[np.int64]:
        """Inverse of `pack`; ValueError where a bitstream cannot be one of so many indices."""
        if self.coder is not None:
            return self.coder.decode(bitstream, y, x)
        return unpack_digits(bitstream, y * x, self.params.codes).reshape(y, x)

    def _checked(self, caption: str | None, cut: bool) -> str | None:
        """A caption as it is stored; ValueError where one is missing or, unless it may be cut, too long."""
        if not self.params.captions:
            return caption
        if caption is None:
            raise ValueError("no caption, and this preset draws pictures from captions too")
        if cut:
            return self.reader.shortened(caption)
        self.reader.filled([caption])
        return caption

    @torch.inference_mode()
    def _encoded(self, pixels_hwc: Pixels, caption: str | None) -> EncodedImage:
        height, width = pixels_hwc.shape[:2]
        y, x = self.grid(height, width)
        side = self.space.cell * self.params.shrink
        edges = ((0, y * side - height), (0, x * side - width), (0, 0))
        latents = self.space.latents_of(np.pad(pixels_hwc, edges, mode="edge"))
        indices = self.rate.vq.indices(self.rate.hyper(latents))[0]
        return EncodedImage(self.pack(indices.cpu().numpy()), caption, height, width)

    @torch.inference_mode()
    def _decoded(self, encoded: EncodedImage, indices_yx: NDArray[np.int64]) -> Pixels:
        indices = torch.from_numpy(indices_yx).to(self.device)[None]
        h, w = (side * self.params.shrink for side in indices_yx.shape)
        shown = F.interpolate(self.rate.vq.embedded(indices).float(), size=(h, w), mode="nearest")
        text = self._text(encoded.caption or "")
        first = first_noise(encoded.bitstream, self.network.shape.latent, h, w).to(self.device)
        latents = sampled(
            first,
            lambda noisy, corners, time: self._velocity(noisy, shown, corners, time, text),
            _levels(self.params),
            times_of(self.params.steps, self.params.spacing),
            Tiling(self.params.tile, self.params.overlap),
        )
        pixels_hwc = self.space.levels_of(latents, encoded.bitstream)
        return np.ascontiguousarray(pixels_hwc[: encoded.height, : encoded.width])

    def _text(self, caption: str) -> Tensor:
        """What is read, (1 or 2, n, E): the caption; before it, where it guides, what no caption looks like."""
        captions = [caption] if self.params.captions else [""]
        if self.params.guidance != 1:
            captions.insert(0, "")
        return self.reader.embedded(self.reader.filled(captions))

    def _velocity(self, noisy: Tensor, shown: Tensor, corners: Corners, time: int, text: Tensor) -> Tensor:
        """v of tiles (T, C, h, w), PASS of them at a time."""
        rows, columns = noisy.shape[2:]
        seen = [shown[:, :, top : top + rows, left : left + columns] for top, left in corners]
        both, kind = len(text), PRECISIONS[self.params.precision]
        made = []
        for place in range(0, len(noisy), PASS):
            part = noisy[place : place + PASS]
            count = len(part)
            times = torch.full((both * count,), time, device=self.device)
            v = self.network.velocity(
                part.repeat(both, 1, 1, 1).to(kind),
                torch.cat(seen[place : place + PASS]).repeat(both, 1, 1, 1),
                times,
                text.repeat_interleave(count, 0).to(kind),
            ).float()
            if both == 2:
                blind, told = v.chunk(2)
                v = blind + self.params.guidance * (told - blind)
            made.append(v)
        return torch.cat(made)


def first_noise(bitstream: bytes, channels: int, h: int, w: int) -> Tensor:
    """(1, C, h, w), nearly normal: of another key than the autoencoder's noise."""
    _, sums = noise(b"latents" + bitstream, channels * h, w)
    return normal(torch.from_numpy(sums.reshape(1, channels, h, w)))


def _levels(params: Params) -> Levels:
    return LEVELS[params.levels]()


def load_perco(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> PercoCodec:
    """The codec of a spec; one that this program does not know, or that its weights do not fit, is refused."""
    check_spec(spec, NAME, VERSION)
    params, place = params_of(spec.params), torch.device(device)
    embedded = params.latents == "embedded"
    files = weight_files(spec, weights, 2 if embedded else 3)
    network = load_network(files[0], lambda shape: Perco(shape_of(shape)), place)
    rate = _rate(network, params)
    if params.indices == "model" and rate.indices is None:
        raise ValueError(f"{files[0].name} holds no model of the indices, expected the parameter digits")
    if embedded != (network.text is not None):
        raise ValueError(f"{files[0].name} holds weights for other latents than {params.latents!r}")
    kind = PRECISIONS[params.precision]
    if kind is not torch.float32:  # as it is already; diffusers would warn
        network.unet.to(kind)
    space: Space
    reader: Reader
    if network.text is not None:
        space = EmbeddedSpace(load_autoencoder(files[1], place))
        reader = WordReader(words_of(network.text), network.text)
    else:
        space = StableDiffusionSpace(load_autoencoder_kl(files[1], place), kind)
        reader = load_text_encoder(files[2], place)
    coder = load_indices(rate.indices) if params.indices == "model" and rate.indices is not None else None
    return PercoCodec(spec, params, network, rate, coder, space, reader, place)


def _rate(network: Perco, params: Params) -> Rate:
    for number, rate in enumerate(network.shape.rates):
        if (rate.shrink, rate.codes) == (params.shrink, params.codes):
            return network.rate(number)
    known = ", ".join(f"1/{rate.shrink} with {rate.codes} codes" for rate in network.shape.rates)
    raise ValueError(f"a grid of 1/{params.shrink} with {params.codes} codes, these weights know: {known}")
