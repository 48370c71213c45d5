"""What all codecs ask of a spec, and of a picture's size."""

from manifests.records import CodecSpec
from pipelines.images import MAX_PIXELS


def check_spec(spec: CodecSpec, name: str, version: int) -> None:
    """ValueError for a spec of another codec, or of a version that this program does not read."""
    if (spec.name, spec.version) != (name, version):
        raise ValueError(
            f"codec {spec.name} version {spec.version}, this program reads {name} version {version}"
        )


def check_size(height: int, width: int) -> None:
    """ValueError where no picture has so many pixels."""
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"a picture of {width} x {height} pixels, expected 1 to {MAX_PIXELS:,}")
