"""Named, complete codec settings: one table."""

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.records import CodecSpec, Param


@dataclass(frozen=True)
class Preset:
    """A named codec setting, with what a user needs to choose it."""

    name: str
    spec: CodecSpec
    bpp: float  # nominal: mean over ordinary photographs, header included
    summary: str
    reads_caption: bool = False  # decoding is conditioned on the caption: encoding refuses to go without
    selective: bool = False  # parts of a picture can be left out, see `Picture.labels_hw`: `encode --keep`
    gpu: bool = False  # runs best on a GPU: workers are pinned to the cluster's GPUs
    imported: bool = (
        False  # comes without weights, and its spec without their sha256; see archiver/weights.py
    )


SPRDIFF_WEIGHTS = "e1977c05755a12d9b02036de9ef7a2e7ba752923c9f3991b59ca2532ed9ebb7a"
PERCO_WEIGHTS = "a1ec670347bedeccd25a433812912e1f53c6a8a3729f0798921acc1dbae85f8d"
AUTOENCODER_WEIGHTS = "fbc6b1451eea7e4ac2902349442b61002d6191a138083e310458073f3bd4c0b5"
AUTOENCODER_MSE_WEIGHTS = "e5b1ffc24f9c8cb24aaef6a52da2f944c8c487a2cbea336997f02a8ef72d2506"
GAN_WEIGHTS = "4453ac034ba7f6a4ccadf55459b0468a0c3ff8ef62c384aa85bbb66f88373e20"
STYLE_STEPS = 16
LAYERED_WEIGHTS = "1a3e7bb89c0a11ebd4db793793ef0f5bc6ef8090cdf9bcffd29776267ab53c75"


def _layered(
    rate: str, scale: int, quality: int, steps: tuple[int, int], summary: str
) -> tuple[Preset, Preset]:
    """One that encodes in a moment, and one whose encoder looks for a style, best on a GPU; both decode alike.

    `steps` of each: side symbols make room for the style.
    """
    params: dict[str, Param] = {"scale": scale, "quality": quality, "chroma": "4:2:0", "step": steps[0]}
    more: dict[str, Param] = {"step": steps[1], "style_steps": STYLE_STEPS}
    fast, slow = (CodecSpec("layered", 1, told, (LAYERED_WEIGHTS,)) for told in (params, params | more))
    summary_slow = (
        f"as layered-{rate}, textures nearer the original's: encoding draws each picture and corrects it"
    )
    return (
        Preset(f"layered-{rate}", fast, float(rate), summary),
        Preset(f"layered-{rate}-slow", slow, float(rate), summary_slow, gpu=True),
    )


def _gan(rate: str, bpp: float, channels: int, summary: str) -> Preset:
    spec = CodecSpec("gan", 1, {"channels": channels}, (GAN_WEIGHTS,))
    return Preset(f"gan-{rate}", spec, bpp, summary, selective=True)


def _perco_tiny(rate: str, bpp: float, shrink: int, codes: int, summary: str) -> Preset:
    params: dict[str, Param] = {
        "latents": "embedded", "shrink": shrink, "codes": codes, "indices": "model", "captions": True,
        "levels": "cosine", "spacing": "trailing", "steps": 2, "guidance": 1.0, "tile": 16, "overlap": 8,
        "precision": "fp32",
    }  # fmt: skip
    spec = CodecSpec("perco", 1, params, (PERCO_WEIGHTS, AUTOENCODER_WEIGHTS))
    return Preset(f"perco-tiny-{rate}", spec, bpp, summary, reads_caption=True)


def _sprdiff_tiny(bpp: float, rate: int, summary: str) -> Preset:
    weights = (SPRDIFF_WEIGHTS, AUTOENCODER_WEIGHTS, AUTOENCODER_MSE_WEIGHTS)
    return Preset(f"sprdiff-tiny-{bpp}", CodecSpec("sprdiff", 1, {"rate": rate}, weights), bpp, summary)


def _sprdiff_sd(bpp: float, rate: int) -> Preset:
    """Of the recipe `sprdiff-sd`, which aims at these bits."""
    return Preset(
        f"sprdiff-sd-{bpp}",
        CodecSpec("sprdiff", 1, {"rate": rate}),
        bpp,
        summary="SPRDiff on Stable Diffusion 2.1: a soft coarse picture that one step redraws",
        gpu=True,
        imported=True,
    )


def _perco_sd(rate: str, shrink: int, steps: int, codes: int = 256) -> Preset:
    """A checkpoint of PerCo (SD), as its authors draw with it: 512 x 512 at once, DDIM, guidance 3."""
    params: dict[str, Param] = {
        "latents": "stable-diffusion", "shrink": shrink, "codes": codes, "indices": "digits", "captions": True,
        "levels": "scaled-linear", "spacing": "leading", "steps": steps, "guidance": 3.0, "tile": 64, "overlap": 16,
        "precision": "fp32",
    }  # fmt: skip
    return Preset(
        f"perco-sd-{rate}",
        CodecSpec("perco", 1, params),
        bpp=float(rate),
        summary=f"PerCo on Stable Diffusion 2.1: drawn from {64 // shrink} x {64 // shrink} indices and a caption",
        reads_caption=True,
        gpu=True,
        imported=True,
    )


# Calibrated with tests/measure/avif_presets.py. Below 0.2 bpp pictures are reduced: at 0.1 it costs 0.3 dB,
# below 0.07 nothing; it is 1.7 times as fast or more, and loses sharpness, evenly, rather than objects.
PRESETS: tuple[Preset, ...] = (
    Preset(
        "avif-0.1",
        CodecSpec("avif", 1, {"scale": 2, "quality": 35, "chroma": "4:2:0"}),
        bpp=0.1,
        summary="AV1 at half size: soft, but faces, signs and textures stay recognisable",
    ),
    Preset(
        "avif-0.01",
        CodecSpec("avif", 1, {"scale": 8, "quality": 36, "chroma": "4:2:0"}),
        bpp=0.01,
        summary="AV1 at an eighth: colours and layout",
    ),
    Preset(
        "avif-0.03",
        CodecSpec("avif", 1, {"scale": 4, "quality": 35, "chroma": "4:2:0"}),
        bpp=0.03,
        summary="AV1 at a quarter: a blurred thumbnail at full size",
    ),
    Preset(
        "avif-0.06",
        CodecSpec("avif", 1, {"scale": 2, "quality": 23, "chroma": "4:2:0"}),
        bpp=0.06,
        summary="AV1 at half size, strongly compressed: objects stay, textures go",
    ),
    Preset(
        "avif-0.2",
        CodecSpec("avif", 1, {"scale": 1, "quality": 24, "chroma": "4:2:0"}),
        bpp=0.2,
        summary="AV1 at full size: a good picture at a glance",
    ),
    Preset(
        "avif-0.3",
        CodecSpec("avif", 1, {"scale": 1, "quality": 34, "chroma": "4:2:0"}),
        bpp=0.3,
        summary="AV1 at full size: a good picture, looked at closely",
    ),
    *_layered(
        "0.012", 4, 1, (145, 200), "a tiny base, redrawn: layout and colours are true, surfaces are invented"
    ),
    *_layered(
        "0.03", 2, 4, (90, 109), "sharp where avif-0.03 is a blur; fine textures and letters are invented"
    ),
    *_layered("0.06", 2, 20, (74, 91), "objects are true, their texture is redrawn"),
    _gan(
        "0.04", 0.045, 8, "drawn by an adversarially trained network: shapes are true, surfaces are painted"
    ),
    _gan("0.02", 0.023, 4, "as gan-0.04 from half of the symbols: edges begin to go"),
    _gan("0.011", 0.012, 2, "as gan-0.04 from a quarter of the symbols: colours and layout"),
    _perco_tiny(
        "0.025", 0.025, 1, 256, "drawn by a small diffusion model: layout and colours, the rest is invented"
    ),
    _perco_tiny(
        "0.009",
        0.009,
        2,
        1024,
        "as perco-tiny-0.025 from a quarter of the indices: colours and the rough layout",
    ),
    _sprdiff_tiny(0.033, 3, "a soft coarse picture that one step of a small diffusion model redraws"),
    _sprdiff_tiny(0.023, 2, "a softer coarse picture, redrawn by a small diffusion model"),
    _sprdiff_tiny(0.015, 1, "as sprdiff-tiny-0.033 with half of the bits: shapes begin to go"),
    _sprdiff_tiny(0.01, 0, "as sprdiff-tiny-0.033 with a third of the bits: colours and layout"),
    _sprdiff_sd(0.03, 3),
    _sprdiff_sd(0.022, 2),
    _sprdiff_sd(0.016, 1),
    _sprdiff_sd(0.011, 0),
    # Published are 0.0019, 0.0313 and 0.1250; there are recipes of all.
    _perco_sd("0.0019", shrink=8, steps=20),
    _perco_sd("0.0024", shrink=8, steps=20, codes=1024),
    _perco_sd("0.0098", shrink=4, steps=20, codes=1024),
    _perco_sd("0.0313", shrink=2, steps=20),
    _perco_sd("0.0507", shrink=2, steps=5, codes=8196),
    _perco_sd("0.0937", shrink=1, steps=5, codes=64),
    _perco_sd("0.1250", shrink=1, steps=5),
)

# The smallest of which one would say "the picture": what it keeps is sharp, and where it was, though textures are
# redrawn. It needs no GPU, and no weights but those that come with the program.
DEFAULT = "layered-0.06"


def find_preset(name: str) -> Preset:
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise ValueError(f"preset {name!r}, this program knows: {', '.join(preset.name for preset in PRESETS)}")


@dataclass(frozen=True)
class Family:
    """The presets NAME-…, which one training makes the weights of."""

    name: str
    parts: tuple[str, ...] = ()  # in a spec after what was trained: what that builds on, as recipes name it
    published: bool = False  # others published weights, too: a folder

    @property
    def presets(self) -> Sequence[Preset]:
        return [preset for preset in PRESETS if preset.name.startswith(f"{self.name}-")]


FAMILIES = (
    Family("layered"),
    Family("gan"),
    Family("perco-tiny", ("autoencoder",)),
    Family("sprdiff-tiny", ("autoencoder", "autoencoder-mse")),
    Family("perco-sd", ("autoencoder-kl", "text-encoder"), published=True),
    Family("sprdiff-sd"),
)


def find_family(name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ValueError(f"family {name!r}, expected one of {', '.join(family.name for family in FAMILIES)}")


def family_of(name: str) -> Family | None:
    """Of a preset or recipe; None for one whose weights complete no preset."""
    return next((family for family in FAMILIES if f"{name}-".startswith(f"{family.name}-")), None)
