import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.codecs.perco_import import RATES
from archiver.presets import FAMILIES, PRESETS, family_of, find_preset
from archiver.training.recipes import RECIPES
from archiver.weights import (
    Import,
    complete,
    find_spec,
    forget,
    how_to_use,
    local_weights,
    named_weights,
    remember,
    shipped_weights,
)


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


def test_a_preset_uses_what_was_imported_for_it_until_that_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    preset, other = find_preset("gan-0.02"), find_preset("gan-0.04")
    found = Import(preset.name, ("0" * 64,), tmp_path)
    remember(found)
    with pytest.raises(ValueError, match="is gone; import it again: archiver weights import gan FILE, or"):
        complete(preset)
    (tmp_path / f"{'0' * 64}.safetensors").touch()
    own = complete(preset).spec
    assert own == replace(preset.spec, weights=found.weights)
    assert complete(other) == other
    assert find_spec(own.id) == (own, found.files)
    assert find_spec(preset.spec.id)[0] == preset.spec
    forget(found)
    assert complete(preset) == preset
    with pytest.raises(ValueError, match="is of no preset of this program"):
        find_spec(own.id)


def test_what_is_kept_twice_is_found_where_it_still_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for gone in ("gan-0.02", "gan-0.04"):
        for name in ("gan-0.02", "gan-0.04"):
            (tmp_path / name).mkdir(exist_ok=True)
            remember(Import(name, ("0" * 64,), tmp_path / name))
            (tmp_path / name / f"{'0' * 64}.safetensors").touch()
        (tmp_path / gone / f"{'0' * 64}.safetensors").unlink()
        assert local_weights()["0" * 64].is_file()


def test_every_preset_of_a_network_has_a_family_and_so_has_what_is_trained_for_it() -> None:
    families = {preset.name: family_of(preset.name) for preset in PRESETS if preset.spec.name != "avif"}
    assert set(families.values()) == set(FAMILIES)
    for family in FAMILIES:
        sizes = {len(preset.spec.weights) for preset in family.presets}
        assert sizes <= {0, 1 + len(family.parts)}
    trained = {family_of(recipe.name) for recipe in RECIPES}
    assert trained == {None, *FAMILIES}  # None: autoencoders
    assert how_to_use("autoencoder", Path("x"), {}) is None
    assert how_to_use("gan-paper", Path("a b"), {}) == "archiver weights import gan 'a b'"


def test_there_is_a_preset_for_every_rate_of_perco() -> None:
    for name, rate in RATES.items():
        params = find_preset(f"perco-sd-{name}").spec.params
        assert (params["shrink"], params["codes"]) == (rate.shrink, rate.codes)
