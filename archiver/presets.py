"""Named, complete codec settings: one table, best default first in its family."""

from dataclasses import dataclass

from manifests.records import CodecSpec


@dataclass(frozen=True)
class Preset:
    """A named codec setting, with what a user needs to choose it."""

    name: str
    spec: CodecSpec
    bpp: float  # nominal: mean over ordinary photographs, header included
    summary: str
    reads_caption: bool = False  # decoding is conditioned on the caption: encoding refuses to go without
    gpu: bool = False  # runs best on a GPU: workers are pinned to the cluster's GPUs


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
)

# The smallest of which one would say "the picture", not "a thumbnail of it", and 5 MPix/s on one core.
DEFAULT = "avif-0.1"


def find_preset(name: str) -> Preset:
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise ValueError(f"preset {name!r}, this program knows: {', '.join(preset.name for preset in PRESETS)}")
