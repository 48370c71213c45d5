"""A spec -> its codec."""

from collections.abc import Mapping
from pathlib import Path

from manifests.records import CodecSpec
from pipelines.codec import Codec


def check_encoder(spec: CodecSpec) -> None:
    """OSError where an encoder of the spec would lack what it needs beside weights; fetched, where it is not here."""
    if spec.name == "layered" and spec.params.get("style_steps"):
        from archiver.codecs.layered_style import fetch_judges

        fetch_judges()


def load_codec(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> Codec:
    """The codec of a spec, its `weights` (sha256 -> local safetensors file) on `device` ("cpu", "cuda:0").

    ValueError for a spec or weights that this program does not know, and for a device that is not here.
    """
    if spec.weights:
        _check_device(device)
    match spec.name:
        case "avif":
            from archiver.codecs.avif import load_avif

            return load_avif(spec)
        case "layered":
            from archiver.codecs.layered import load_layered

            return load_layered(spec, weights, device)
        case "gan":
            from archiver.codecs.gan import load_gan

            return load_gan(spec, weights, device)
        case "perco":
            from archiver.codecs.perco import load_perco

            return load_perco(spec, weights, device)
        case "sprdiff":
            from archiver.codecs.sprdiff import load_sprdiff

            return load_sprdiff(spec, weights, device)
        case _:
            raise ValueError(f"codec {spec.name!r}, this program knows: avif, layered, gan, perco, sprdiff")


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).splitlines()[0][:200]
        raise ValueError(
            f'device {device!r}, expected "cpu" or a GPU that is here, "cuda:0": {why}'
        ) from error
