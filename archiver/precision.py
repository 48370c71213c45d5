"""Which precision a device computes fastest in: bf16 only where it has instructions for it."""

import torch


def autocast(device: torch.device) -> torch.autocast:
    """Matrices and convolutions in bf16 where the device has it, all in fp32 elsewhere.

    Processors without it compute bf16 as well, one number after the other: on one with AVX2 alone products of
    matrices took 250 times as long as in fp32, convolutions and their slopes 3 times.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))


def has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    known: dict[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in older versions of torch
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16"))
