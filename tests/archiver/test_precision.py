import pytest
import torch

from archiver.precision import autocast


@pytest.mark.parametrize(
    ("capabilities", "made"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_processors_compute_in_bf16_what_they_have_instructions_for(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], made: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    with autocast(torch.device("cpu")):
        assert torch.nn.Linear(2, 3)(torch.zeros(1, 2)).dtype == made


def test_a_torch_that_cannot_tell_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    with autocast(torch.device("cpu")):
        assert torch.nn.Linear(2, 3)(torch.zeros(1, 2)).dtype == torch.float32
