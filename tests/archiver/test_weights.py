import hashlib

import pytest

from archiver.presets import PRESETS
from archiver.weights import named_weights, shipped_weights


def test_shipped_weights_are_those_that_presets_name_and_each_has_a_model_card() -> None:
    shipped = shipped_weights()
    assert shipped
    assert {sha256 for preset in PRESETS if not preset.imported for sha256 in preset.spec.weights} == set(
        shipped
    )
    for sha256, file in shipped.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        assert file.with_suffix(".md").exists()


def test_weights_go_by_their_name_the_newest_or_the_one_of_a_number() -> None:
    assert named_weights("layered").name == "layered-9.safetensors"
    assert named_weights("gan-3").name == "gan-3.safetensors"
    with pytest.raises(ValueError, match="no weights 'layer' come"):
        named_weights("layer")
