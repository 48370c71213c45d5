"""From pictures to numbers, through a real archive and two other processes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.codecs import load_codec
from archiver.evaluation.html import page
from archiver.evaluation.job import EvaluationJob
from archiver.evaluation.metrics import psnr
from archiver.evaluation.report import curves_of, published_in, to_json
from archiver.evaluation.results import Evaluation
from archiver.evaluation.run import Progress, evaluate
from archiver.presets import find_preset
from manifests.storage import locate
from pipelines.codec import Picture, Pixels
from tests.samples import noise, photo, photograph

PRESETS = ("avif-0.03", "avif-0.2")


def write(folder: Path, key: str, pixels_hwc: Pixels) -> None:
    file = folder / key
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_hwc).save(file)


def job(folder: Path) -> EvaluationJob:
    return EvaluationJob(
        locate(str(folder / "source")),
        tuple(find_preset(name) for name in PRESETS),
        ("avif",),
        folder / "work",
        shown=1,
    )


@pytest.fixture(scope="module")
def originals() -> dict[str, Pixels]:
    return {
        "a/cat.png": photo(180, 211),
        "b/cup.png": np.ascontiguousarray(photograph("coffee")[100:280, 150:350]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, originals: dict[str, Pixels]) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    for key, pixels_hwc in originals.items():
        write(folder / "source", key, pixels_hwc)
    write(folder / "source", "small.png", noise(160, 300))
    (folder / "source" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (folder / "source" / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def evaluation(folder: Path) -> Evaluation:
    *progress, last = evaluate(job(folder))
    assert all(isinstance(event, Progress) for event in progress)
    assert isinstance(last, Evaluation)
    return last


def test_pictures_that_cannot_take_part_are_named(evaluation: Evaluation) -> None:
    assert evaluation.pictures == ("a/cat.png", "b/cup.png")
    assert evaluation.pixels == 180 * 211 + 180 * 200
    assert sorted(evaluation.left_out) == ["small.png", "torn.png"]
    assert evaluation.failed == ("torn.png",)
    assert "300 x 160 pixels" in evaluation.left_out["small.png"]


def test_the_bytes_and_scores_are_those_of_the_codec(
    evaluation: Evaluation, originals: dict[str, Pixels]
) -> None:
    for result in evaluation.codecs:
        codec = load_codec(find_preset(result.preset).spec, {}, "cpu")
        for picture in result.pictures:
            (encoded,) = codec.encode([Picture(originals[picture.key], None)])
            (decoded,) = codec.decode([encoded])
            assert picture.bytes == len(encoded.bitstream)
            assert picture.scores.psnr == pytest.approx(psnr(originals[picture.key], decoded))


def test_rates_are_means_of_pictures_and_of_bits(evaluation: Evaluation) -> None:
    result = evaluation.codecs[1]
    first, second = (picture.bytes for picture in result.pictures)
    assert result.sums.bpp_mean == pytest.approx((8 * first / (180 * 211) + 8 * second / (180 * 200)) / 2)
    assert result.sums.bpp_total == pytest.approx(8 * (first + second) / evaluation.pixels)


def test_the_archives_bits_are_those_of_all_its_pixels(evaluation: Evaluation) -> None:
    for result in evaluation.codecs:
        assert result.archive.pixels == evaluation.pixels


def test_the_whole_archive_is_counted(evaluation: Evaluation, folder: Path) -> None:
    result = evaluation.codecs[0]
    archive = folder / "work" / "archives" / result.preset
    assert result.archive.total == sum(file.stat().st_size for file in archive.rglob("*") if file.is_file())
    assert result.archive.bitstreams == sum(picture.bytes for picture in result.pictures)
    assert result.archive.overhead == result.archive.total - result.archive.bitstreams
    assert result.bpp_all_in > result.sums.bpp_total


def test_speed_and_memory_are_those_of_the_other_process(evaluation: Evaluation) -> None:
    for result in evaluation.codecs:
        for side in (result.encode, result.decode):
            assert side.megapixels_per_second > 0.1
            assert 20e6 < side.peak_bytes < 400e6  # torch, which this process has loaded, is not among it


def test_conventional_files_have_the_bytes_that_were_asked_for(evaluation: Evaluation) -> None:
    for result in evaluation.codecs:
        (matched,) = evaluation.matched_at(result.preset).values()
        for ours, theirs in zip(result.pictures, matched.pictures, strict=True):
            assert theirs.picture.key == ours.key
            assert not theirs.over
            assert 0.5 * ours.bytes < theirs.picture.bytes <= 1.02 * ours.bytes


def test_the_json_document_holds_it_all(evaluation: Evaluation) -> None:
    document = json.loads(json.dumps(to_json(evaluation)))
    assert [codec["preset"] for codec in document["codecs"]] == list(PRESETS)
    assert document["codecs"][0]["at_equal_bytes"]["avif"]["preset_better"]["dists"]["pictures"] == 2
    assert {one["metric"] for one in document["bd_rates"]} == {
        "lpips_alex", "lpips_vgg", "dists", "psnr", "ms_ssim",
    }  # fmt: skip
    assert document["published"] == []


def test_the_page_is_whole_and_asks_for_nothing(evaluation: Evaluation) -> None:
    text = page(evaluation)
    assert text.count("<svg viewBox") == 5
    assert text.count("data:image/webp;base64,") == 1 + 2 * len(PRESETS)  # original, presets, AVIF at each
    for outside in ("http:", "https:", "src=", "@import", "url("):
        assert outside not in text.replace("url(#clip-", "")


def test_a_key_cannot_break_out_of_the_page(evaluation: Evaluation) -> None:
    evil = "</script><script>alert(1)</script>"
    shown = tuple(replace(one, key=evil) for one in evaluation.shown)
    text = page(replace(evaluation, source=evil, shown=shown, left_out={evil: evil}))
    assert "<script>alert" not in text


@pytest.fixture
def fresh(folder: Path, tmp_path: Path) -> EvaluationJob:
    return replace(job(folder), work=tmp_path / "work")


def test_a_work_folder_of_something_else_is_refused(folder: Path, evaluation: Evaluation) -> None:
    assert evaluation.pictures
    with pytest.raises(ValueError, match="holds something else"):
        next(evaluate(replace(job(folder), limit=1)))


def test_the_same_job_again_codes_nothing_again(
    folder: Path, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.evaluation.coding.encode_in_process", None)
    monkeypatch.setattr("archiver.evaluation.coding.decode_in_process", None)
    *_, again = evaluate(job(folder))
    assert isinstance(again, Evaluation)
    assert again.codecs == evaluation.codecs


def test_other_pictures_than_it_began_with_are_refused(originals: dict[str, Pixels], tmp_path: Path) -> None:
    def begin() -> None:
        for event in evaluate(replace(job(tmp_path), presets=job(tmp_path).presets[:1], baselines=())):
            if isinstance(event, Progress) and event.phase.startswith("coding"):
                return

    for key, pixels_hwc in originals.items():
        write(tmp_path / "source", key, pixels_hwc)
    begin()
    begin()
    write(tmp_path / "source", "c.png", photo(180, 180))
    with pytest.raises(ValueError, match="has other pictures than"):
        begin()
    (tmp_path / "source" / "c.png").unlink()
    write(tmp_path / "source", "b/cup.png", photo(190, 190))
    with pytest.raises(ValueError, match=r"b/cup\.png is not what it was"):
        begin()


def test_an_encoding_that_was_broken_off_goes_on(fresh: EvaluationJob, evaluation: Evaluation) -> None:
    events = evaluate(replace(fresh, presets=fresh.presets[:1]))
    while next(events) != Progress("measuring", 0, 2):
        pass
    (fresh.work / "decoded" / PRESETS[0] / "outcome.json").unlink()
    parts = list((fresh.work / "archives" / PRESETS[0] / "images").glob("*.parquet"))
    *_, last = evaluate(replace(fresh, presets=fresh.presets[:1]))
    assert isinstance(last, Evaluation)
    assert last.codecs[0].pictures == evaluation.codecs[0].pictures
    assert list((fresh.work / "archives" / PRESETS[0] / "images").glob("*.parquet")) == parts


def test_a_picture_that_one_preset_cannot_encode_is_left_out_and_named(
    originals: dict[str, Pixels], tmp_path: Path
) -> None:
    for key, pixels_hwc in originals.items():
        write(tmp_path / "source", key, pixels_hwc)
    (tmp_path / "source" / "a" / "cat.txt").write_text("a cat")
    presets = (find_preset("avif-0.03"), find_preset("perco-tiny-0.009"))
    *_, last = evaluate(replace(job(tmp_path), presets=presets, baselines=(), shown=0))
    assert isinstance(last, Evaluation)
    assert (last.pictures, last.failed) == (("a/cat.png",), ("b/cup.png",))
    assert last.left_out["b/cup.png"].startswith("perco-tiny-0.009: no caption")
    avif, perco = last.codecs
    assert (avif.archive.pixels, perco.archive.pixels) == (180 * 211 + 180 * 200, 180 * 211)
    assert [picture.key for picture in avif.pictures] == ["a/cat.png"]


def test_where_none_can_be_judged_the_reason_is_told(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "source", "tiny.png", noise(3, 3))
    (tmp_path / "source" / "torn.png").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"none of 2 images.* tiny\.png: 3 x 3 pixels.*, and 1 more"):
        list(evaluate(job(tmp_path)))


def test_of_a_limit_the_next_takes_the_place_of_one_that_cannot(fresh: EvaluationJob) -> None:
    first = replace(fresh, limit=2, presets=fresh.presets[:1], baselines=())
    *_, last = evaluate(first)
    assert isinstance(last, Evaluation)
    assert last.pictures == ("a/cat.png",)
    assert sorted(last.left_out) == ["small.png", "torn.png"]  # of a/cat b/cup | small torn


def test_a_work_folder_below_the_source_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="neither to lie within the other"):
        next(evaluate(replace(job(folder), work=folder / "source" / "work")))


def test_a_baseline_twice_is_refused(fresh: EvaluationJob) -> None:
    with pytest.raises(ValueError, match="each once"):
        next(evaluate(replace(fresh, baselines=("avif", "avif"))))


def test_kodaks_curves_stand_beside_kodaks_pictures_alone(evaluation: Evaluation) -> None:
    def named(keys: tuple[str, ...], height: int) -> Evaluation:
        pictures = tuple(
            replace(evaluation.codecs[0].pictures[0], key=key, height=height, width=768) for key in keys
        )
        return replace(evaluation, pictures=keys, codecs=(replace(evaluation.codecs[0], pictures=pictures),))

    assert published_in(named(("kodim01.png", "x/kodim02.png"), 512))
    assert not published_in(named(("kodim01.png",), 511))
    assert not published_in(named(("kodim01.png", "x/kodim01.png"), 512))
    assert not published_in(named(("kodim01.png", "cat.png"), 512))


def test_presets_of_another_kind_are_another_curve(evaluation: Evaluation) -> None:
    presets = ("layered-0.03", "layered-0.06", "layered-0.03-slow", "perco-tiny-0.009", "perco-sd-0.0313")
    codecs = tuple(replace(evaluation.codecs[0], preset=preset, family="x") for preset in presets)
    curves = curves_of(replace(evaluation, codecs=codecs, matched=()))
    assert [curve.name for curve in curves] == ["layered", "layered-slow", "perco-tiny", "perco-sd"]


def test_a_preset_twice_is_refused(fresh: EvaluationJob) -> None:
    with pytest.raises(ValueError, match="each once"):
        next(evaluate(replace(fresh, presets=fresh.presets[:1] * 2)))


def test_other_weights_than_inceptions_are_refused(fresh: EvaluationJob, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"other features")
    with pytest.raises(ValueError, match="it would not be FID"):
        next(evaluate(replace(fresh, inception=tmp_path / "weights.pth")))
