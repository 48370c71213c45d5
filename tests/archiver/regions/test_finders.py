"""What is kept, found by models of transformers: tiny ones with random weights, saved and loaded as real ones are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from archiver.regions import DETECTOR, SEGMENTER, Wanted, check_finder, load_finder, wanted_of
from archiver.regions.detector import Detector
from archiver.regions.segmenter import Segmenter
from pipelines.regions import CODED, DRAWN
from tests.archiver.regions.tiny_finders import tiny_segformer, tiny_yolos
from tests.samples import SIZES, photo, photographs


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_yolos(tmp_path_factory.mktemp("yolos"))


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_segformer(tmp_path_factory.mktemp("segformer"))


def detector(yolos: str, *classes: str, score: float = 0.5) -> Detector:
    loaded = load_finder(Wanted(DETECTOR, yolos, classes, score).setting, "cpu")
    assert isinstance(loaded, Detector)
    return loaded


def segmenter(segformer: str, *classes: str) -> Segmenter:
    loaded = load_finder(Wanted(SEGMENTER, segformer, classes).setting, "cpu")
    assert isinstance(loaded, Segmenter)
    return loaded


def test_a_detector_keeps_the_boxes_of_its_classes_above_a_score(yolos: str) -> None:
    finder = detector(yolos, "Dog", score=0.4)
    for pixels_hwc in photographs():
        height, width = pixels_hwc.shape[:2]
        inputs = finder.processor(images=[Image.fromarray(pixels_hwc)], return_tensors="pt")
        with torch.inference_mode():
            outputs = finder.model(**inputs)
        expected = np.full((height, width), DRAWN, np.uint8)
        for odds, box in zip(outputs.logits[0].softmax(-1), vars(outputs)["pred_boxes"][0], strict=True):
            best = int(odds[:-1].argmax())  # the last class is no object
            if best == 2 and odds[best] > 0.4:
                x, y, w, h = (box * torch.tensor([width, height, width, height])).tolist()
                left, top = (max(0, int(np.floor(side))) for side in (x - w / 2, y - h / 2))
                expected[top : int(np.ceil(y + h / 2)), left : int(np.ceil(x + w / 2))] = CODED
        (labels,) = finder.labels([pixels_hwc])
        assert labels is not None
        assert 0.02 < (labels == CODED).mean() < 0.98
        assert (labels != expected).mean() < 0.01  # sums of floats may round a side to the next pixel


def test_fewer_boxes_are_kept_of_fewer_classes_and_above_a_higher_score(yolos: str) -> None:
    def kept(finder: Detector) -> float:
        found = finder.labels(photographs())
        return float(np.mean([0 if one is None else (one == CODED).mean() for one in found]))

    dogs, all_classes = kept(detector(yolos, "dog", score=0.4)), kept(detector(yolos, score=0.4))
    surer = kept(detector(yolos, score=0.8))
    assert 0 < dogs < all_classes
    assert 0 < surer < all_classes


def test_a_picture_in_which_nothing_is_found_is_coded_whole(yolos: str) -> None:
    assert detector(yolos, score=0.9999).labels(photographs()) == [None] * 3


def test_a_segmenter_keeps_the_pixels_of_its_classes(segformer: str) -> None:
    finder = segmenter(segformer, "dog", "person")
    for pixels_hwc in photographs():
        inputs = finder.processor(images=[Image.fromarray(pixels_hwc)], return_tensors="pt")
        with torch.inference_mode():
            logits = finder.model(**inputs).logits
        best_HW = F.interpolate(logits, size=pixels_hwc.shape[:2], mode="bilinear")[0].argmax(0)
        (labels,) = finder.labels([pixels_hwc])
        assert labels is not None
        assert set(np.unique(labels)) == {CODED, DRAWN}
        # Not all: between two kept classes that take turns the third may win in one way of enlarging.
        assert ((best_HW.numpy() != 1) == (labels == CODED)).mean() > 0.97


def test_what_one_segmenter_keeps_the_opposite_one_draws(segformer: str) -> None:
    lights, others = segmenter(segformer, "traffic light"), segmenter(segformer, "person", "dog")
    for first, second in zip(lights.labels(photographs()), others.labels(photographs()), strict=True):
        assert first is not None
        assert second is not None
        assert ((first == CODED) == (second == DRAWN)).mean() > 0.999


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_labels_have_the_pictures_size(yolos: str, segformer: str, height: int, width: int) -> None:
    for finder in (detector(yolos, score=0.3), segmenter(segformer, "dog", "person")):
        (labels,) = finder.labels([photo(height, width)])
        assert labels is None or labels.shape == (height, width)


def test_a_batch_gives_what_its_pictures_give_alone(yolos: str, segformer: str) -> None:
    for finder in (detector(yolos, score=0.3), segmenter(segformer, "dog")):
        together = finder.labels(photographs())
        for one, pixels_hwc in zip(together, photographs(), strict=True):
            assert np.array_equal(one, finder.labels([pixels_hwc])[0])  # type: ignore[arg-type]


def test_models_that_are_there_pass_the_check(yolos: str, segformer: str) -> None:
    check_finder(Wanted(DETECTOR, yolos, ()).setting)
    check_finder(Wanted(DETECTOR, yolos, (" Traffic  LIGHT",)).setting)
    check_finder(Wanted(SEGMENTER, segformer, ("dog",)).setting)


def test_what_a_model_cannot_do_is_refused_before_it_is_loaded(yolos: str, segformer: str) -> None:
    with pytest.raises(ValueError, match="no class 'cat', it knows: dog, person, traffic light"):
        check_finder(Wanted(DETECTOR, yolos, ("dog", "cat")).setting)
    with pytest.raises(ValueError, match="all of its classes are kept"):
        check_finder(Wanted(SEGMENTER, segformer, ("dog", "person", "traffic light")).setting)
    with pytest.raises(ValueError, match="is a 'segformer' model, expected one that finds objects"):
        check_finder(Wanted(DETECTOR, segformer, ()).setting)
    with pytest.raises(ValueError, match="is a 'yolos' model, expected one that names each pixel's class"):
        check_finder(Wanted(SEGMENTER, yolos, ("dog",)).setting)
    with pytest.raises(ValueError, match="expected a folder, or a hub id"):
        check_finder("detector 0.5 * /nowhere/yolos")


def test_weights_that_are_not_there_end_the_run(yolos: str, tmp_path: Path) -> None:
    """An OSError ends it; anything else would be blamed on the images, one by one."""
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((Path(yolos) / name).read_bytes())
    with pytest.raises(OSError, match="safetensors"):
        load_finder(Wanted(DETECTOR, str(tmp_path), ()).setting, "cpu")


def test_a_class_that_has_gone_since_the_plan_ends_the_run(yolos: str, tmp_path: Path) -> None:
    for path in Path(yolos).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["2"] = "hound"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match="no class 'dog'"):
        load_finder(Wanted(DETECTOR, str(tmp_path), ("dog",)).setting, "cpu")


def test_a_setting_names_all_of_it(yolos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Wanted(DETECTOR, "someone/detector", ("traffic light", "a,b*"), 0.25)
    assert wanted.setting == "detector 0.25 traffic%20light,a%2Cb%2A someone/detector"
    assert wanted_of(wanted.setting) == wanted
    assert wanted_of("segmenter dog,person a folder/x") == Wanted(SEGMENTER, "a folder/x", ("dog", "person"))
    monkeypatch.chdir(Path(yolos).parent)
    assert Wanted(DETECTOR, Path(yolos).name, ()).setting == f"detector 0.5 * {yolos}"


@pytest.mark.parametrize(
    "setting",
    ["detector", "detector 0.5 *", "detector 2 * x", "detector nan * x", "detector * x", "segmenter * x",
     "segmenter dog", "poem x", ""],
)  # fmt: skip
def test_a_setting_that_is_none(setting: str) -> None:
    with pytest.raises(OSError, match="this program knows: detector SCORE CLASSES NAME"):
        load_finder(setting, "cpu")
