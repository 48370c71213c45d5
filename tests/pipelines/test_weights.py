"""Weights into an archive and out of it again, by their hash."""

import hashlib
from pathlib import Path

import pytest

from manifests import archive
from manifests.archive import Archive
from manifests.records import CodecSpec
from manifests.storage import locate
from pipelines import weights
from pipelines.weights import fetch_weights, store_weights, weights_path

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SPEC = CodecSpec("gan", 1, {}, (SHA256,))


@pytest.fixture
def made(tmp_path: Path) -> Archive:
    return archive.create(locate(str(tmp_path / "archive")))


@pytest.fixture
def stored(made: Archive, tmp_path: Path) -> Archive:
    (tmp_path / "local.safetensors").write_bytes(CONTENT)
    store_weights(made, {SHA256: tmp_path / "local.safetensors"})
    return made


def test_what_was_stored_is_fetched(stored: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "CHUNK_BYTES", 1000)  # in several pieces
    found = fetch_weights(stored, SPEC, tmp_path / "cache")
    assert {sha256: path.read_bytes() for sha256, path in found.items()} == {SHA256: CONTENT}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{SHA256}.safetensors"]


def test_a_second_fetch_reads_the_cache_only(stored: Archive, tmp_path: Path) -> None:
    fetch_weights(stored, SPEC, tmp_path / "cache")
    stored.store.delete(weights_path(SHA256))
    assert fetch_weights(stored, SPEC, tmp_path / "cache")[SHA256].read_bytes() == CONTENT


def test_a_damaged_cache_is_fetched_anew(stored: Archive, tmp_path: Path) -> None:
    (path,) = fetch_weights(stored, SPEC, tmp_path / "cache").values()
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch_weights(stored, SPEC, tmp_path / "cache")[SHA256].read_bytes() == CONTENT


def test_damaged_and_missing_weights_are_refused_and_leave_nothing(stored: Archive, tmp_path: Path) -> None:
    stored.store.write(weights_path(SHA256), CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match=f"{SHA256}.safetensors is damaged"):
        fetch_weights(stored, SPEC, tmp_path / "cache")
    stored.store.delete(weights_path(SHA256))
    with pytest.raises(FileNotFoundError):
        fetch_weights(stored, SPEC, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_weights_are_written_once(stored: Archive, tmp_path: Path) -> None:
    path = tmp_path / "archive" / weights_path(SHA256)
    before = path.stat()
    store_weights(stored, {SHA256: tmp_path / "local.safetensors"})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_of_another_hash_is_not_stored(made: Archive, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(ValueError, match="their sha256 is not"):
        store_weights(made, {SHA256: tmp_path / "other"})
    assert not made.store.exists(weights_path(SHA256))


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 63, "A" * 64])
def test_a_spec_cannot_name_other_files(made: Archive, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected a sha256"):
        fetch_weights(made, CodecSpec("gan", 1, {}, (name,)), tmp_path / "cache")


def test_weights_larger_than_a_piece_are_stored_in_pieces(
    made: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "CHUNK_BYTES", 1000)
    (tmp_path / "local.safetensors").write_bytes(CONTENT)
    store_weights(made, {SHA256: tmp_path / "local.safetensors"})
    assert made.store.read(weights_path(SHA256)) == CONTENT
    (tmp_path / "local.safetensors").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match="their sha256 is not"):
        store_weights(made, {"0" * 64: tmp_path / "local.safetensors"})
    assert [entry.path for entry in made.store.list("weights")] == [weights_path(SHA256)]
