"""Tags of photographs that are known, and of batches."""

import numpy as np
import pytest
import skimage.data

from archiver.captioners import check_captioner, load_captioner
from archiver.captioners.tags import class_names
from pipelines.captions import Captioner


@pytest.fixture(scope="module")
def tagger() -> Captioner:
    check_captioner("tags")
    return load_captioner("tags", "cpu", 2)


def test_things_on_photographs_are_named(tagger: Captioner) -> None:
    photographs = [skimage.data.chelsea(), skimage.data.coffee()]  # type: ignore[no-untyped-call]
    assert tagger.captions(photographs) == ["Egyptian cat", "espresso"]


def test_where_nothing_is_sure_there_is_no_tag(tagger: Captioner) -> None:
    noise = np.random.default_rng(1).integers(96, 160, (64, 64, 3)).astype(np.uint8)
    assert tagger.captions([noise, np.zeros((1, 1, 3), np.uint8)])[0] == "picture"


def test_a_batch_gives_what_its_pictures_give_alone(tagger: Captioner) -> None:
    photographs = [skimage.data.chelsea(), skimage.data.rocket()]  # type: ignore[no-untyped-call]
    alone = [caption for photograph in photographs for caption in tagger.captions([photograph])]
    assert tagger.captions(photographs) == alone


def test_each_class_has_a_name_of_its_own_in_imagenets_order() -> None:
    names = class_names()
    assert len(names) == len(set(names)) == 1000
    known = {0: "tench", 134: "crane bird", 207: "golden retriever", 285: "Egyptian cat", 437: "lighthouse"}
    known |= {517: "crane machine", 817: "sports car", 967: "espresso", 999: "toilet paper"}
    assert {place: names[place] for place in known} == known
    assert not any("," in name for name in names)
