"""`archiver weights`: from published folders to pictures, through the command line alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiver.presets import PRESETS, find_preset
from archiver.weights import complete, imported_folder
from tests.command_line import objects, refuse, succeed
from tests.samples import photo
from tests.tiny_perco_sd import write_base, write_checkpoint

pytestmark = pytest.mark.usefixtures("user")

PRESET = "perco-sd-0.0313"
NEEDS = f"archiver weights import perco-sd CHECKPOINT --base FOLDER_OR_HUB_ID --rate {PRESET[-6:]}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/ and checkpoint/."""
    folder = tmp_path_factory.mktemp("published")
    write_base(folder / "base")
    write_checkpoint(folder / "checkpoint")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, height, width in (("dog", 40, 72), ("tower", 70, 33)):
        Image.fromarray(photo(height, width)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a red {name}", encoding="utf-8")
    return folder


def imported(published: Path, *more: str) -> str:
    words = "--base", str(published / "base"), "--rate", "0.0313", *more
    return succeed("weights", "import", "perco-sd", published / "checkpoint", *words)


def test_from_a_published_checkpoint_to_restored_pictures(
    published: Path, source: Path, user: Path, tmp_path: Path
) -> None:
    archive, restored = tmp_path / "archive", tmp_path / "restored"
    assert refuse("encode", source, archive, "--codec", PRESET, "--captions", "sidecar") == (
        f"archiver encode: preset {PRESET} needs weights that do not come with the program: {NEEDS}"
    )
    assert not archive.exists()

    told = imported(published)
    names = sorted(file.name for file in user.iterdir())
    assert len(names) == 4
    assert f"{PRESET}.json" in names
    for name in names:
        assert name == f"{PRESET}.json" or Path(name).stem in told
    assert told.splitlines()[-1].endswith(
        f"archiver encode SOURCE ARCHIVE --codec {PRESET} --captions CAPTIONS"
    )

    words = ("--workers", "0", "--captions", "sidecar")
    assert "2 images archived" in succeed("encode", source, archive, "--codec", PRESET, *words)
    spec = complete(find_preset(PRESET)).spec
    assert len(spec.weights) == 3
    assert sorted(file.stem for file in (archive / "weights").iterdir()) == sorted(spec.weights)
    rows = {str(row["key"]): row for row in objects(succeed("ls", archive, "--json"))}
    assert rows["dog.png"]["caption"] == "a red dog"
    # 16 x 16 pixels an index of 256 codes: 3 x 5, and 5 x 3 of them.
    assert [rows[key]["bitstream_bytes"] for key in ("dog.png", "tower.png")] == [15, 15]

    shutil.rmtree(user)  # the archive alone restores
    succeed("restore", archive, restored, "--workers", "0")
    for name, size in (("dog", (72, 40)), ("tower", (33, 70))):
        with Image.open(restored / f"{name}.png") as picture:
            assert picture.size == size
            levels = np.asarray(picture.convert("RGB"))
        assert levels.std() > 0  # not black: something was drawn


def test_codecs_and_ls_tell_what_is_there(published: Path, user: Path) -> None:
    def preset(name: str) -> dict[str, object]:
        (found,) = (found for found in json.loads(succeed("codecs", "--json")) if found["name"] == name)
        return dict(found)

    assert (preset(PRESET)["needs"], preset(PRESET)["spec"]) == (NEEDS, None)
    assert f"needs: {NEEDS}" in succeed("codecs")
    assert all((preset.spec.weights == ()) for preset in PRESETS if preset.imported)
    before = json.loads(succeed("weights", "ls", "--json"))
    assert not any(name.startswith("perco-sd") for found in before for name in found["presets"])

    document = json.loads(imported(published, "--json"))
    assert document["folder"] == str(user)
    assert preset(PRESET)["needs"] is None
    assert preset(PRESET)["spec"] == complete(find_preset(PRESET)).spec.id
    assert preset("perco-sd-0.1250")["spec"] is None
    found = {entry["sha256"]: entry for entry in json.loads(succeed("weights", "ls", "--json"))}
    assert len(found) == len(before) + 3
    for sha256 in document["weights"]:
        assert found[sha256]["presets"] == [PRESET]
        assert found[sha256]["bytes"] == (user / f"{sha256}.safetensors").stat().st_size
    assert document["weights"][0][:12] in succeed("weights", "ls")


def test_weights_can_lie_elsewhere_and_are_missed_when_they_are_gone(
    published: Path, source: Path, user: Path, tmp_path: Path
) -> None:
    imported(published, "--out", str(tmp_path / "shelf"))
    assert [file.name for file in user.iterdir()] == [f"{PRESET}.json"]
    first = complete(find_preset(PRESET)).spec.weights[0]
    (tmp_path / f"shelf/{first}.safetensors").unlink()
    complaint = refuse("encode", source, tmp_path / "archive", "--codec", PRESET, "--captions", "sidecar")
    assert complaint.endswith(f"{first}.safetensors is gone; import it again: {NEEDS}")
    assert not (tmp_path / "archive").exists()
    assert " gone " in succeed("weights", "ls")
    succeed("encode", source, tmp_path / "other", "--codec", "avif-0.1", "--workers", 0)
    succeed("export", tmp_path / "other", "dog.png", tmp_path / "a.arc")
    succeed("decode", tmp_path / "a.arc", tmp_path / "a.png")  # which is of another preset
    (user / f"{PRESET}.json").write_text("{}", encoding="utf-8")
    assert "is no record of an import" in refuse("weights", "ls")


def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(published: Path, user: Path) -> None:
    words = ("weights", "import", "perco-sd", published / "checkpoint", "--base", published / "base")
    assert "32 x 32 indices of 256 codes (rate 0.0313), rate 0.1250" in refuse(*words, "--rate", "0.1250")
    assert "rate '1', expected one of 0.0019, " in refuse(*words, "--rate", "1")
    assert "rate 0.0098 has 16 x 16 of 1024" in refuse(*words, "--rate", "0.0098")
    assert refuse(*words).endswith("checkpoint is a folder: expected --rate, and no --part")
    assert "has no vae/: expected --base" in refuse(*words[:4], "--rate", "0.0313")
    assert not user.exists()


def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported_folder() == tmp_path / "data/archiver/weights"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert imported_folder() == tmp_path / "home/.local/share/archiver/weights"
