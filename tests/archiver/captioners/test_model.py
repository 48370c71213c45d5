"""Captions by models of transformers: tiny ones with random weights, saved and loaded as real ones are."""

import json
from pathlib import Path

import numpy as np
import pytest

from archiver.captioners import check_captioner, load_captioner, model_setting
from archiver.captioners.model import cut_repeats
from pipelines.captions import Captioner
from pipelines.codec import Pixels
from tests.archiver.captioners.tiny_models import ASKED, WORDS, tiny_blip, tiny_blip2, tiny_llava


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module", params=[tiny_blip, tiny_blip2, tiny_llava])
def captioner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    folder = request.param(tmp_path_factory.mktemp("model"))
    check_captioner(model_setting(folder, 12))
    return load_captioner(model_setting(folder, 12), "cpu", 3)


def pictures() -> list[Pixels]:
    rng = np.random.default_rng(1)
    made = [rng.integers(0, 256, (40, 61, 3), dtype=np.uint8) for _ in range(3)]
    return [*made, np.zeros((1, 1, 3), np.uint8), np.full((7, 90, 3), 255, np.uint8)]


def test_pictures_get_captions_of_the_models_words(captioner: Captioner) -> None:
    captions = captioner.captions(pictures())
    assert len(captions) == 5
    assert len(set(captions)) > 1  # they depend on the picture
    assert {word for caption in captions for word in caption.split()} <= {*WORDS, *ASKED}
    assert not any("Describe the picture" in caption for caption in captions)  # what it was asked
    assert captioner.batch == 3


def test_a_batch_gives_what_its_pictures_give_alone(captioner: Captioner) -> None:
    alone = [caption for picture in pictures() for caption in captioner.captions([picture])]
    assert captioner.captions(pictures()) == alone == captioner.captions(pictures())


def test_no_caption_has_more_tokens_than_were_asked_for(blip: str) -> None:
    few = load_captioner(model_setting(blip, 2), "cpu").captions(pictures())
    many = load_captioner(model_setting(blip, 12), "cpu").captions(pictures())
    assert max(len(caption.split()) for caption in few) <= 2 < max(len(c.split()) for c in many)


def test_a_folder_is_named_so_that_workers_elsewhere_find_it(
    blip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(blip).parent)
    assert model_setting(Path(blip).name, 7) == f"model 7 {blip}"
    assert model_setting("someone/captions", 7) == "model 7 someone/captions"


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a 'bert' model, expected one from images to text"):
        check_captioner(model_setting(str(tmp_path), 12))


@pytest.mark.parametrize("setting", ["model 12 /nowhere/blip", "model 12 ./blip"])
def test_a_folder_that_is_not_there_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="expected a folder, or a hub id"):
        check_captioner(setting)


def test_weights_that_are_not_there_end_the_run(blip: str, tmp_path: Path) -> None:
    """An OSError ends it; anything else would be blamed on the images, one by one."""
    for path in Path(blip).iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(OSError, match=r"safetensors"):
        load_captioner(model_setting(str(tmp_path), 12), "cpu")


@pytest.mark.parametrize("setting", ["model", "model 0 x", "model 513 x", "model x y", "poem", ""])
def test_a_setting_that_is_none(setting: str) -> None:
    with pytest.raises(OSError, match="this program knows: tags, model TOKENS NAME"):
        load_captioner(setting, "cpu")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a cat and a dog and a dog and a dog and a", "a cat and a dog"),
        ("two two two two dogs", "two dogs"),
        ("a very very small boat", "a very very small boat"),
        ("a red boat a red boat", "a red boat"),
        ("boats boats boats boats", "boats"),
        ("a man and a woman and a child", "a man and a woman and a child"),
        ("", ""),
    ],
)
def test_what_a_model_repeats_is_said_once(said: str, kept: str) -> None:
    assert cut_repeats(said) == kept
