import hashlib

from archiver.presets import PRESETS
from archiver.weights import shipped_weights


def test_shipped_weights_are_those_that_presets_name_and_each_has_a_model_card() -> None:
    shipped = shipped_weights()
    assert shipped
    assert set(shipped) == {sha256 for preset in PRESETS for sha256 in preset.spec.weights}
    for sha256, file in shipped.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        assert file.with_suffix(".md").exists()
