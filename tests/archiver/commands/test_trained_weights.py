"""`archiver weights import FAMILY FILE`: what `archiver train` wrote takes the place of what came with the program."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archiver.codecs.layered_networks import Enhancer
from archiver.codecs.layered_shape import Shape
from archiver.codecs.networks import save_network
from archiver.codecs.perco_networks import RateShape
from archiver.codecs.sprdiff_networks import Sprdiff, context_model
from archiver.presets import find_preset
from archiver.weights import complete, find_spec, how_to_use
from tests import tiny_gan, tiny_perco, tiny_sprdiff
from tests.archiver.training.test_sprdiff_foundation import SHAPE as SPRDIFF_SD
from tests.command_line import objects, refuse, succeed
from tests.golden_files import sha256
from tests.samples import photo
from tests.tiny_perco_sd import write_base, write_checkpoint

pytestmark = pytest.mark.usefixtures("user")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    Image.fromarray(photo(40, 72)).save(folder / "dog.png")
    (folder / "dog.txt").write_text("a dog", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight channels, as all presets need."""
    shape = replace(tiny_gan.SHAPE, channels=8)
    (file,) = tiny_gan.tiny_weights(tmp_path_factory.mktemp("gan"), shape).values()
    return file.rename(file.parent / "gan.safetensors")


def restored(source: Path, archive: Path, preset: str) -> np.ndarray:
    """The picture after its way into a new archive and out of it."""
    words = ("--captions", "sidecar", "--workers", "0")
    assert "1 image archived" in succeed("encode", source, archive, "--codec", preset, *words)
    return again(archive, archive.with_name(f"{archive.name}-out"))


def again(archive: Path, out: Path) -> np.ndarray:
    succeed("restore", archive, out, "--workers", "0")
    with Image.open(out / "dog.png") as picture:
        assert picture.size == (72, 40)
        return np.asarray(picture.convert("RGB"))


def imported(family: str, file: Path, *words: str | Path) -> Sequence[str]:
    """The presets that are now complete with the file."""
    document = json.loads(succeed("weights", "import", family, file, *words, "--json"))
    assert document["weights"][0] == sha256(file.read_bytes())
    for name in document["presets"]:
        assert complete(find_preset(name)).spec.weights == tuple(document["weights"])
    return list(document["presets"])


def test_there_and_back(gan: Path, source: Path, user: Path, tmp_path: Path) -> None:
    before = restored(source, tmp_path / "before", "gan-0.02")
    shipped = find_preset("gan-0.02").spec

    told = succeed("weights", "import", "gan", gan)
    assert told.startswith("gan-0.04, gan-0.02, gan-0.011 now use, in ")
    assert told.splitlines()[-1] == "Encode with: archiver encode SOURCE ARCHIVE --codec gan-0.04"
    kept = f"{sha256(gan.read_bytes())}.safetensors"
    assert sorted(file.name for file in user.iterdir()) == sorted(
        [kept, "gan-0.011.json", "gan-0.02.json", "gan-0.04.json"]
    )
    after = restored(source, tmp_path / "after", "gan-0.02")
    assert not np.array_equal(before, after)
    assert [file.name for file in (tmp_path / "after/weights").iterdir()] == [kept]
    own = complete(find_preset("gan-0.02")).spec
    assert (tmp_path / f"after/specs/{own.id}.json").exists()
    assert np.array_equal(again(tmp_path / "before", tmp_path / "again"), before)
    assert find_spec(own.id) == (own, {own.weights[0]: user / kept})
    assert find_spec(shipped.id)[0] == shipped
    for name, expected in (("before", before), ("after", after)):
        file, png = tmp_path / f"{name}.arc", tmp_path / f"{name}.png"
        succeed("export", tmp_path / name, "dog.png", file)
        succeed("decode", file, png)
        with Image.open(png) as picture:
            assert np.array_equal(np.asarray(picture.convert("RGB")), expected)

    assert json.loads(succeed("weights", "forget", "gan", "--json")) == {
        "presets": ["gan-0.011", "gan-0.02", "gan-0.04"],
        "files": [str(user / kept)],
    }
    assert complete(find_preset("gan-0.02")).spec == shipped
    assert [file.name for file in user.iterdir()] == [kept]
    assert kept in succeed("weights", "ls")
    assert np.array_equal(restored(source, tmp_path / "back", "gan-0.02"), before)
    shutil.rmtree(user)
    assert np.array_equal(again(tmp_path / "after", tmp_path / "after-again"), after)
    assert refuse("weights", "forget", "gan") == "archiver weights: no weights of gan are imported"


def test_codecs_and_ls_tell_what_is_used(gan: Path) -> None:
    assert "imported" not in succeed("codecs")
    imported("gan", gan)
    assert "with imported weights, see `archiver weights ls`: gan-0.011, gan-0.02, gan-0.04" in succeed(
        "codecs"
    )
    told = {preset["name"]: preset for preset in json.loads(succeed("codecs", "--json"))}
    own = complete(find_preset("gan-0.02")).spec
    assert (told["gan-0.02"]["imported"], told["gan-0.02"]["spec"]) == (True, own.id)
    assert not told["layered-0.06"]["imported"]
    users = {found["sha256"]: found["presets"] for found in json.loads(succeed("weights", "ls", "--json"))}
    assert users[own.weights[0]] == ["gan-0.04", "gan-0.02", "gan-0.011"]
    assert users[find_preset("gan-0.02").spec.weights[0]] == []


def test_what_fits_some_presets_completes_these(tmp_path: Path) -> None:
    (file,) = tiny_gan.tiny_weights(tmp_path).values()
    told = succeed("weights", "import", "gan", file)  # of four channels
    assert told.startswith("gan-0.02, gan-0.011 now use, in ")
    assert "Not for gan-0.04: channels 8, expected 1 to 4" in told
    assert complete(find_preset("gan-0.04")) == find_preset("gan-0.04")
    assert "channels 8, expected 1 to 4" in refuse("weights", "import", "gan", file, "--rate", "0.04")


def test_what_is_no_such_file_changes_nothing(gan: Path, user: Path, tmp_path: Path) -> None:
    (tmp_path / "gan.safetensors").write_bytes(gan.read_bytes()[:-1000])
    words = ("weights", "import")
    assert refuse(*words, "gan", tmp_path / "gan.safetensors").startswith(
        f"archiver weights: {tmp_path}/gan.safetensors fits no preset of gan: gan.safetensors holds other weights "
    )
    for family in ("layered", "perco-tiny", "sprdiff-tiny", "sprdiff-sd"):
        assert "gan.safetensors holds other weights than this codec's" in refuse(*words, family, gan)
    assert refuse(*words, "gan", tmp_path / "none").endswith("none: No such file or directory")
    assert refuse(*words, "gan", tmp_path).endswith(
        "is a folder, expected the file that `archiver train` wrote"
    )
    assert refuse(*words, "gan", gan, "--base", "x").endswith("and --base is for these alone")
    assert refuse(*words, "gan", gan, "--part", "vae=x").endswith("gan builds on nothing, not on vae")
    assert "preset 'gan-1', this program knows: " in refuse(*words, "gan", gan, "--rate", "1")
    assert "family 'avif', expected one of layered, gan, " in refuse(*words, "avif", gan)
    assert "--part autoencoder-kl=FILE" in refuse(*words, "perco-sd", gan)
    assert not user.exists()


def test_layered_without_a_style(source: Path, tmp_path: Path) -> None:
    """As the recipe's first steps make it."""
    torch.manual_seed(1)
    shape = Shape(fine=8, coarse=8, fine_blocks=1, coarse_blocks=1, deep=8, deep_blocks=1)
    save_network(Enhancer(shape), asdict(shape), tmp_path / "layered-1.safetensors")
    command = how_to_use("layered-1", tmp_path / "layered-1.safetensors", {})
    assert command == f"archiver weights import layered {tmp_path}/layered-1.safetensors"
    told = succeed(*command.split()[1:])
    assert told.startswith("layered-0.012, layered-0.03, layered-0.06 now use, in ")
    assert "Not for layered-0.06-slow: style_steps 16, but the weights know no style" in told
    assert complete(find_preset("layered-0.06-slow")) == find_preset("layered-0.06-slow")
    restored(source, tmp_path / "archive", "layered-0.06")


def test_parts_are_those_of_the_training(
    source: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tiny_perco, "SHAPE", replace(tiny_perco.SHAPE, rates=(RateShape(1, 256), RateShape(2, 1024)))
    )
    file, part = tiny_perco.tiny_weights(tmp_path).values()
    words = ("--part", f"autoencoder={part}")
    assert imported("perco-tiny", file, *words) == ["perco-tiny-0.025", "perco-tiny-0.009"]
    restored(source, tmp_path / "archive", "perco-tiny-0.009")

    facts = tmp_path / "facts.json"
    facts.write_text(
        json.dumps({"recipe": "perco", "parts": {"autoencoder": sha256(part.read_bytes())}}), encoding="utf-8"
    )
    imported("perco-tiny", file)  # its autoencoder is here, since the last import
    shutil.rmtree(user)
    assert "builds on autoencoder, which is not here: --part autoencoder=FILE" in refuse(
        "weights", "import", "perco-tiny", file
    )
    assert "was trained on another autoencoder" in refuse(
        "weights", "import", "perco-tiny", file, "--part", f"autoencoder={file}"
    )
    facts.write_text("no", encoding="utf-8")
    assert "facts.json is not what" in refuse("weights", "import", "perco-tiny", file, *words)
    facts.unlink()
    imported("perco-tiny", file)  # shipped, as recipes have it: one that fits, whatever it draws
    assert (
        complete(find_preset("perco-tiny-0.025")).spec.weights[1]
        == find_preset("perco-tiny-0.025").spec.weights[1]
    )


def test_sprdiff_tiny_and_its_two_parts(source: Path, tmp_path: Path) -> None:
    file, *parts = tiny_sprdiff.tiny_weights(tmp_path).values()
    words = [word for part in parts for word in ("--part", f"{part.stem}={part}")]
    assert imported("sprdiff-tiny", file, *words) == [f"sprdiff-tiny-{bpp}" for bpp in (0.023, 0.015, 0.01)]
    restored(source, tmp_path / "archive", "sprdiff-tiny-0.015")


def test_sprdiff_on_stable_diffusion(source: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Sprdiff(SPRDIFF_SD).eval()
    network.entropy.freeze(context_model(SPRDIFF_SD))
    file = tmp_path / "sprdiff-sd.safetensors"
    save_network(network, asdict(SPRDIFF_SD), file)
    assert "sprdiff-sd FILE" in refuse("encode", source, tmp_path / "archive", "--codec", "sprdiff-sd-0.011")
    assert imported("sprdiff-sd", file) == ["sprdiff-sd-0.016", "sprdiff-sd-0.011"]
    restored(source, tmp_path / "archive", "sprdiff-sd-0.011")
    words = ("weights", "import", "sprdiff-tiny", file, "--rate", "0.01")
    assert "with 3 weights, expected 1 for this network" in refuse(*words)


def test_perco_on_stable_diffusion_takes_its_parts_from_a_published_one(source: Path, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    write_checkpoint(tmp_path / "checkpoint")
    published = (
        "weights",
        "import",
        "perco-sd",
        tmp_path / "checkpoint",
        "--base",
        tmp_path / "base",
        "--rate",
    )
    document = json.loads(succeed(*published, "0.0313", "--json"))
    own, *parts = (Path(document["folder"]) / f"{name}.safetensors" for name in document["weights"])
    file = own.rename(tmp_path / "perco-sd-0.0313.safetensors")
    succeed("weights", "forget", "perco-sd")
    names = {"autoencoder-kl": parts[0], "text-encoder": parts[1]}
    command = how_to_use("perco-sd-0.0313", file, {"unet": file, **names})
    assert command == (
        f"archiver weights import perco-sd {file} --rate 0.0313 "
        f"--part autoencoder-kl={parts[0]} --part text-encoder={parts[1]}"
    )
    succeed(*command.split()[1:])
    assert complete(find_preset("perco-sd-0.0313")).spec.weights == tuple(document["weights"])
    words = [word for name, part in names.items() for word in ("--part", f"{name}={part}")]
    assert imported("perco-sd", file, *words) == ["perco-sd-0.0313"]
    restored(source, tmp_path / "archive", "perco-sd-0.0313")
    (row,) = objects(succeed("ls", tmp_path / "archive", "--json"))
    assert row["bitstream_bytes"] == 15


def test_what_is_gone_is_told_with_the_way_back(gan: Path, source: Path, user: Path, tmp_path: Path) -> None:
    imported("gan", gan, "--out", tmp_path / "shelf")
    assert not list(user.glob("*.safetensors"))
    shutil.rmtree(tmp_path / "shelf")
    assert refuse("encode", source, tmp_path / "archive", "--codec", "gan-0.02").endswith(
        "is gone; import it again: archiver weights import gan FILE, or archiver weights forget gan"
    )
    succeed("weights", "forget", "gan")
    restored(source, tmp_path / "archive", "gan-0.02")
