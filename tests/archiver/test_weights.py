import hashlib

import pytest

from archiver.presets import PRESETS
from archiver.training.recipes import RECIPES
from archiver.weights import named_weights, shipped_weights


def test_shipped_weights_are_those_that_presets_name_and_each_has_a_model_card() -> None:
    shipped = shipped_weights()
    assert shipped
    named = {sha256 for preset in PRESETS for sha256 in preset.spec.weights}
    assert named <= set(shipped)
    # The others are what recipes begin with.
    parts = {named_weights(part) for recipe in RECIPES for part in recipe.parts if part.startswith("layered")}
    assert {shipped[sha256] for sha256 in set(shipped) - named} <= parts
    for sha256, file in shipped.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        assert file.with_suffix(".md").exists()


def test_weights_go_by_their_name_the_newest_or_the_one_of_a_number() -> None:
    assert named_weights("layered").name == "layered-2.safetensors"
    assert named_weights("layered-1").name == "layered-1.safetensors"
    with pytest.raises(ValueError, match="no weights 'layer' come"):
        named_weights("layer")
