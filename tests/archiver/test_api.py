"""Python's way in: selections as sequences of pictures, here and in other processes."""

import ast
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import archiver
from archiver.api import LostImages, Picture, Selection
from archiver.codecs import load_codec
from manifests.archive import Archive
from manifests.records import CodecSpec, EncodedImage, Record
from manifests.storage import locate
from pipelines.codec import Codec
from tests.archives import SPEC, build, encoded, small_pictures
from tests.codec_suite import encode_one
from tests.tiny_gan import tiny_codec, tiny_weights

KEYS = [f"{'ab'[n % 2]}/{n:03}.jpg" for n in range(12)]
ORDERED = sorted(KEYS)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An archive of twelve pictures in three parts."""
    folder = tmp_path_factory.mktemp("api") / "archive"
    build(locate(str(folder)), encoded(small_pictures(12), KEYS), shard_records=4)
    return str(folder)


def expected(key: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What the codec makes of the picture, the archive left out."""
    (record,) = encoded([small_pictures(12)[KEYS.index(key)]], [key])
    assert isinstance(record.image, EncodedImage)
    (pixels_hwc,) = load_codec(SPEC, {}, "cpu").decode([record.image])
    return pixels_hwc


def test_importing_it_is_cheap() -> None:
    program = "import sys, archiver; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "ray", "pyarrow", "deltalake", "numpy", "PIL"} & set(ast.literal_eval(out))


def test_a_selection_gives_keys_and_pictures(url: str) -> None:
    archive = archiver.open(url)
    restored = dict(archive.select("caption like '%a/%'").restore())
    assert sorted(restored) == [key for key in ORDERED if key.startswith("a/")]
    for key, image in restored.items():
        assert isinstance(image, Image.Image)
        assert (image.mode, image.size) == ("RGB", (32, 24))
        assert np.array_equal(np.asarray(image), expected(key))


def test_a_selection_is_a_sequence(url: str) -> None:
    selection = archiver.open(url).select()
    assert len(selection) == 12
    assert [selection[place][0] for place in range(12)] == ORDERED
    assert selection[-1][0] == ORDERED[-1]
    assert np.array_equal(np.asarray(selection[5][1]), expected(ORDERED[5]))
    for outside in (12, -13):
        with pytest.raises(IndexError, match=f"image {outside} of 12"):
            selection[outside]
    assert [key for key, _ in selection] == ORDERED  # iteration ends


def test_a_slice_is_a_selection(url: str) -> None:
    selection = archiver.open(url).select()
    for cut in (slice(2, 5), slice(-3, None), slice(None, None, -4), slice(3, 3), slice(10, 99)):
        part = selection[cut]
        assert isinstance(part, Selection)
        assert part.table["key"].to_pylist() == ORDERED[cut]
        assert [key for key, _ in part] == ORDERED[cut]
    assert selection[2:5][-1][0] == ORDERED[4]
    assert sorted(key for key, _ in selection[::2].restore()) == ORDERED[::2]


def test_the_same_index_twice_gives_two_pictures(url: str) -> None:
    (_, first), (_, second) = archiver.open(url).select().__getitems__([3, 3])
    before = second.tobytes()
    first.paste((0, 0, 0), (0, 0, 32, 24))
    assert second.tobytes() == before != first.tobytes()


def test_several_at_once_come_in_the_order_asked_for(url: str) -> None:
    found = archiver.open(url).select().__getitems__([9, 0, 9])
    assert [key for key, _ in found] == [ORDERED[9], ORDERED[0], ORDERED[9]]
    assert np.array_equal(np.asarray(found[0][1]), expected(ORDERED[9]))


def test_codecs_are_loaded_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counting(spec: CodecSpec, weights: Mapping[str, Path], device: str) -> Codec:
        loaded.append(spec.id)
        return load_codec(spec, weights, device)

    monkeypatch.setattr("archiver.codecs.load_codec", counting)
    selection = archiver.open(url).select()
    for place in range(3):
        selection[place]
    assert len(list(selection.restore())) == 12
    assert [key for key, _ in selection[4:6]] == ORDERED[4:6]
    assert loaded == [SPEC.id]


def test_conditions_limits_and_keys(url: str) -> None:
    archive = archiver.open(url)
    assert archive.select(limit=3).table["key"].to_pylist() == ORDERED[:3]
    assert archive.select(keys=["a/000.jpg", "no/such.jpg"]).table["key"].to_pylist() == ["a/000.jpg"]
    assert len(archive.select("width > 100")) == 0
    assert list(archive.select("width > 100").restore()) == []
    assert len(archive.failures()) == 0
    with pytest.raises(ValueError, match="colour"):
        archive.select("colour = 'red'")
    assert len(archive.select(keys=[])) == 0


@pytest.mark.parametrize("keys", ["c.jpg", b"x", [b"x"], [Path("a/000.jpg")], ["a/000.jpg", 5]])
def test_keys_are_several_texts(url: str, keys: object) -> None:
    with pytest.raises(ValueError, match=r"keys .*, expected several texts: \['a/b.jpg', ...\]"):
        archiver.open(url).select(keys=keys)  # type: ignore[arg-type]


def test_paths_are_as_good_as_texts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    opened = archiver.open(Path(url), weights_cache="~/weights")
    assert opened.weights_cache == Path("/home/me/weights")
    assert opened == archiver.open(url, weights_cache=Path("~/weights"))
    assert len(opened.select()) == 12


@pytest.mark.parametrize("device", ["gpu", "meta", "", "hpu", "cuda:99"])
def test_a_device_that_is_not_here_is_named(tmp_path: Path, device: str) -> None:
    weights = tiny_weights(tmp_path)
    codec = tiny_codec(weights)
    image = encode_one(codec, small_pictures(1)[0])
    record = Record("a.jpg", 1000, 1_700_000_000, codec.spec.id, image)
    location = locate(str(tmp_path / "archive"))
    found = build(location, [record], spec=codec.spec)
    ((sha256, file),) = weights.items()
    found.store.write(f"weights/{sha256}.safetensors", file.read_bytes())
    opened = archiver.open(location.url, device=device, weights_cache=tmp_path / "cache")
    with pytest.raises(LostImages, match=rf"device '{device}', expected \"cpu\" or a GPU that is here"):
        opened.select()[0]
    assert archiver.open(location.url, weights_cache=tmp_path / "cache").select()[0][0] == "a.jpg"


def test_there_must_be_an_archive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no archive at"):
        archiver.open(str(tmp_path))
    with pytest.raises(ValueError, match="S3 option 'colour'"):
        archiver.open("s3://bucket/x", {"colour": "red"})


def test_a_selection_travels_to_other_processes(url: str, tmp_path: Path) -> None:
    """As DataLoader's workers get it: before and after it has opened its archive here."""
    selection = archiver.open(url).select()
    before = pickle.dumps(selection)
    key, image = selection[3]
    after = pickle.dumps(selection)
    assert len(after) == len(before)
    (tmp_path / "selection").write_bytes(after)
    program = (
        "import pickle, sys\n"
        "selection = pickle.load(open(sys.argv[1], 'rb'))\n"
        "key, image = selection[3]\n"
        "print(len(selection), key, image.tobytes().hex(), 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "selection")]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert there == ["12", key, image.tobytes().hex(), "False", "False"]


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_a_dataloader_takes_it(url: str, context: str | None) -> None:
    """In this process; and in workers, though this process has opened the archive and decoded some of it."""
    from torch.utils.data import DataLoader  # a test's import, not the package's

    selection = archiver.open(url).select()
    assert selection[0][0] == ORDERED[0]
    loader: DataLoader[Picture] = DataLoader(
        selection,  # type: ignore[arg-type]  # no base class of torch's is asked for at run time
        batch_size=5,
        collate_fn=list,
        num_workers=0 if context is None else 1,
        multiprocessing_context=context,
    )
    batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert [key for batch in batches for key, _ in batch] == ORDERED


def test_lost_images_are_named_after_the_others_were_given(tmp_path: Path) -> None:
    location = locate(str(tmp_path / "archive"))
    build(location, encoded(small_pictures(12), KEYS), shard_records=4)
    selection = archiver.open(location.url).select()
    first = min(Archive(location).parts)
    (tmp_path / "archive/images" / first).unlink()
    given: list[Picture] = []
    with pytest.raises(LostImages, match=r"cannot restore 'a/000.jpg' \(.*\), and 3 more") as raised:
        given.extend(selection.restore())
    assert sorted(key for key, _ in given) == ORDERED[4:]
    assert [key for key, _ in raised.value.lost] == ORDERED[:4]
    travelled = pickle.loads(pickle.dumps(raised.value))
    assert (str(travelled), travelled.lost) == (str(raised.value), raised.value.lost)
    with pytest.raises(LostImages):
        selection[0]
    assert selection[4][0] == ORDERED[4]
