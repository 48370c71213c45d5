"""`archiver encode --keep`: what is kept is coded, the rest costs next to nothing. With real, tiny networks."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver import presets
from archiver.codecs import load_codec
from archiver.codecs.gan import GanCodec
from archiver.presets import PRESETS, Preset
from archiver.weights import Import, remember
from manifests.archive import Archive
from manifests.read import read_records
from manifests.records import CodecSpec, EncodedImage, Record
from manifests.storage import locate
from pipelines.listing import Selection, plan_run
from tests.archiver.regions.tiny_finders import tiny_segformer, tiny_yolos
from tests.command_line import objects, refuse, run, succeed
from tests.samples import photograph
from tests.tiny_gan import tiny_weights

HEIGHT, WIDTH = 300, 451  # of the cat
CELLS = 19, 29


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    ((name, file),) = tiny_weights(folder).items()
    return {name: file.rename(folder / f"{name}.safetensors")}


@pytest.fixture(autouse=True)
def _a_preset_that_can(files: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This program's presets, and one of tiny networks, imported as users import weights."""
    gan = Preset("gan-tiny", CodecSpec("gan", 1, {"channels": 4}), 0.013, "", selective=True, imported=True)
    monkeypatch.setattr(presets, "PRESETS", (*PRESETS, gan))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    remember(Import("gan-tiny", tuple(files), next(iter(files.values())).parent))


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """One photograph under four names."""
    file = io.BytesIO()
    Image.fromarray(photograph("chelsea")).save(file, "PNG")
    (tmp_path / "cats").mkdir()
    for name in ("a", "b", "c", "d"):
        (tmp_path / "cats" / f"{name}.png").write_bytes(file.getvalue())
    return tmp_path / "cats"


def encode(source: Path, archive: Path, *words: str | Path | int) -> list[str]:
    """Keys that failed."""
    run("encode", source, archive, "--codec", "gan-tiny", "--workers", 0, *words)
    return [str(row["key"]) for row in objects(run("failures", archive, "--json").stdout)]


def images(archive: Path) -> dict[str, EncodedImage]:
    found = Archive(locate(str(archive)))
    records = [record for part in found.parts.values() for record in read_records(found.store, part, None)]
    return {one.key: one.image for one in records if isinstance(one, Record) and one.image is not None}


def drawn(files: Mapping[str, Path], image: EncodedImage) -> np.ndarray:
    """Which cells are (h, w)."""
    codec = load_codec(CodecSpec("gan", 1, {"channels": 4}, tuple(files)), files, "cpu")
    assert isinstance(codec, GanCodec)
    labels_hw: np.ndarray = codec.unpack(image.bitstream, *CELLS).labels_hw > 0
    return labels_hw


def test_total_bytes_fall_with_the_area_that_is_drawn(
    cats: Path, files: Mapping[str, Path], tmp_path: Path
) -> None:
    boxes = {"b.png": [[0, 0, 224, HEIGHT]], "c.png": [[16.5, 16, 95, 160], [0, 0, 32, 32]], "d.png": []}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert encode(cats, tmp_path / "archive", "--keep", f"boxes:{tmp_path}/boxes.json") == []
    found = images(tmp_path / "archive")
    sizes = [len(found[f"{name}.png"].bitstream) for name in "abcd"]
    assert sizes == sorted(set(sizes), reverse=True)
    expected = np.ones(CELLS, dtype=bool)
    expected[1:10, 1:6] = expected[:2, :2] = False
    assert not drawn(files, found["a.png"]).any()
    assert np.array_equal(drawn(files, found["c.png"]), expected)
    assert drawn(files, found["d.png"]).all()
    succeed("restore", tmp_path / "archive", tmp_path / "restored", "--workers", 0)
    for name in "abcd":
        with Image.open(tmp_path / "restored" / f"{name}.png") as image:
            assert image.size == (WIDTH, HEIGHT)


def test_a_box_outside_of_its_picture_is_a_failure_and_no_other_image_is(cats: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"b.png": [[0, 0, 452, 10]]}')
    assert encode(cats, tmp_path / "archive", "--keep", f"boxes:{tmp_path}/boxes.json") == ["b.png"]
    (row,) = objects(run("failures", tmp_path / "archive", "--json").stdout)
    assert row["failure"] == "regions unusable: box [0, 0, 452, 10] in a picture of 451 x 300 pixels"
    assert images(tmp_path / "archive").keys() == {"a.png", "c.png", "d.png"}


def test_masks_beside_images_say_what_is_drawn_and_are_no_images(
    cats: Path, files: Mapping[str, Path], tmp_path: Path
) -> None:
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[160:] = 3
    labels[:, 320:] = 255
    Image.fromarray(labels).save(cats / "b.labels.png")
    Image.fromarray(labels[1:]).save(cats / "c.labels.png")
    (cats / "d.labels.png").write_bytes(b"torn")
    assert encode(cats, tmp_path / "archive", "--keep", "mask") == ["c.png", "d.png"]
    told = {
        row["key"]: row["failure"] for row in objects(run("failures", tmp_path / "archive", "--json").stdout)
    }
    expected = "labels of 451 x 299 pixels, expected the picture's 451 x 300"
    assert told["c.png"] == f"regions unusable: c.labels.png: {expected}"
    assert str(told["d.png"]).startswith("regions unusable: d.labels.png: not a whole PNG")
    found = images(tmp_path / "archive")
    assert found.keys() == {"a.png", "b.png"}
    assert np.array_equal(
        drawn(files, found["b.png"]), np.add.outer(np.arange(19) >= 10, np.arange(29) >= 20)
    )
    # Put right, they are tried again.
    for name in "cd":
        (cats / f"{name}.labels.png").write_bytes((cats / "b.labels.png").read_bytes())
    assert encode(cats, tmp_path / "archive", "--keep", "mask", "--retry-failures") == []
    assert images(tmp_path / "archive").keys() == {"a.png", "b.png", "c.png", "d.png"}


def test_objects_that_a_detector_finds_are_kept(
    cats: Path, files: Mapping[str, Path], tmp_path: Path
) -> None:
    yolos = tiny_yolos(tmp_path / "yolos")
    words = ("--keep", f"detector:{yolos}", "--keep-classes", "dog,traffic light", "--keep-score", "0.3")
    assert encode(cats, tmp_path / "archive", *words) == []
    archive = Archive(locate(str(tmp_path / "archive")))
    (run_name,) = archive.runs()
    assert archive.plan_head(run_name).keep == f"detector 0.3 dog,traffic%20light {yolos}"
    cells = drawn(files, images(tmp_path / "archive")["a.png"])
    assert 0.2 < cells.mean() < 0.95
    succeed("verify", tmp_path / "archive", "--decode", "1")


def test_classes_that_a_segmenter_finds_are_kept(
    cats: Path, files: Mapping[str, Path], tmp_path: Path
) -> None:
    segformer = tiny_segformer(tmp_path / "segformer")
    share = {}
    for classes in ("dog", "dog, person"):
        words = ("--keep", f"segmenter:{segformer}", "--keep-classes", classes)
        assert encode(cats, tmp_path / classes, *words) == []
        share[classes] = drawn(files, images(tmp_path / classes)["a.png"]).mean()
    assert share["dog"] == 0  # it finds none: the picture is coded whole
    assert 0.5 < share["dog, person"] < 0.95


def test_an_unfinished_run_goes_on_with_the_boxes_it_was_planned_with(cats: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"a.png": [[0, 0, 32, 32]]}')
    encode(cats, tmp_path / "archive", "--exclude", "*")  # an archive with the spec, and nothing in it
    archive = Archive(locate(str(tmp_path / "archive")))
    (spec,) = archive.specs()
    plan_run(
        archive, locate(str(cats)), archive.spec(spec), Selection(), "none", None, "boxes", locate(str(boxes)),
        False, lambda count: 2, False,
    )  # fmt: skip
    boxes.unlink()
    assert encode(cats, tmp_path / "archive") == []
    sizes = {key: len(image.bitstream) for key, image in images(tmp_path / "archive").items()}
    assert sizes["a.png"] < sizes["b.png"]
    assert sizes["b.png"] == sizes["c.png"] == sizes["d.png"]


def test_what_would_be_added_is_estimated_with_what_is_kept(cats: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps({f"{name}.png": [[0, 0, 32, 32]] for name in "abcd"}))
    words = (
        "encode",
        cats,
        tmp_path / "archive",
        "--codec",
        "gan-tiny",
        "--workers",
        0,
        "--dry-run",
        "--json",
    )
    whole = json.loads(succeed(*words))
    part = json.loads(succeed(*words, "--keep", f"boxes:{tmp_path}/boxes.json"))
    assert part["bpp"] < whole["bpp"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--keep", "mask", "--codec", "avif-0.1"], "whole pictures only; presets that can leave out parts: gan-"),
        (["--keep", "boxes:nowhere.json"], "nowhere.json"),
        (["--keep", "detector:/nowhere"], "detector /nowhere: expected a folder, or a hub id"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_told_in_one_line(
    cats: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    assert told in refuse("encode", cats, tmp_path / "archive", "--codec", "gan-tiny", "--workers", 0, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--keep", "poem"],
            "'poem', expected boxes:FILE.json, mask, detector:FOLDER|ID or segmenter:FOLDER|ID",
        ),
        (["--keep", "boxes:"], "expected boxes:FILE.json"),
        (["--keep", "segmenter:x"], "expected with a segmenter"),
        (["--keep", "mask", "--keep-classes", "dog"], "expected with a detector or segmenter"),
        (["--keep-score", "0.5"], "expected with a detector"),
    ],
)
def test_wrong_usage_is_told(cats: Path, tmp_path: Path, words: list[str], told: str) -> None:
    result = run("encode", cats, tmp_path / "archive", "--codec", "gan-tiny", "--workers", 0, *words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "archive").exists()


def test_a_file_that_holds_no_boxes_is_told(cats: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text('{"a.png": [[5, 5, 2, 9]]}')
    words = ("--codec", "gan-tiny", "--workers", 0, "--keep", f"boxes:{tmp_path}/boxes.json")
    assert "'a.png' has the box [5, 5, 2, 9]" in refuse("encode", cats, tmp_path / "archive", *words)
