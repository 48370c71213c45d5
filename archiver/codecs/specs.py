"""What all codecs ask of a spec."""

from manifests.records import CodecSpec


def check_spec(spec: CodecSpec, name: str, version: int) -> None:
    """ValueError for a spec of another codec, or of a version that this program does not read."""
    if (spec.name, spec.version) != (name, version):
        raise ValueError(
            f"codec {spec.name} version {spec.version}, this program reads {name} version {version}"
        )
