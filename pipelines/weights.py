"""Weights in an archive <-> files on this machine, both under the sha256 of their bytes."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from manifests.archive import Archive
from manifests.records import CodecSpec
from manifests.storage import Store

CHUNK_BYTES = 64_000_000
_SHA256 = re.compile("[0-9a-f]{64}")


def default_cache() -> Path:
    """Where weights are kept once they were fetched."""
    return Path.home() / ".cache" / "archiver" / "weights"


def weights_path(sha256: str) -> str:
    """In an archive; ValueError for a name that no hash has."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"weights {sha256!r}, expected a sha256 in 64 hex digits")
    return f"weights/{sha256}.safetensors"


def fetch_weights(archive: Archive, spec: CodecSpec, cache: Path) -> Mapping[str, Path]:
    """The spec's weights (sha256 -> local file), fetched once a machine, compared with their hash each time.

    ValueError where the archive's are damaged, FileNotFoundError where it has none.
    """
    return {sha256: _fetched(archive.store, sha256, cache) for sha256 in spec.weights}


def _fetched(store: Store, sha256: str, cache: Path) -> Path:
    path = weights_path(sha256)
    kept = cache / path.removeprefix("weights/")
    if kept.is_file() and sha256_of_file(kept) == sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    # Several workers may fetch at once: each writes a file of its own, and the last rename wins.
    unfinished = cache / f".{sha256}-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        found = hashlib.sha256()
        with unfinished.open("xb") as file:
            for chunk in chunks(store, path):
                found.update(chunk)
                file.write(chunk)
        if found.hexdigest() != sha256:
            raise ValueError(f"{path} is damaged: its sha256 is {found.hexdigest()}")
        os.replace(unfinished, kept)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return kept


def store_weights(archive: Archive, weights: Mapping[str, Path]) -> None:
    """Inverse of `fetch_weights`: writes those that the archive lacks; ValueError for a file of another hash."""
    for sha256, file in weights.items():
        path = weights_path(sha256)
        if archive.store.size(path) == file.stat().st_size:
            continue
        if file.stat().st_size > CHUNK_BYTES:
            archive.store.write_pieces(path, _pieces(file, sha256))
        else:
            archive.store.write(path, b"".join(_pieces(file, sha256)))


def _pieces(file: Path, sha256: str) -> Iterator[bytes]:
    """A file in pieces, for files larger than memory; at its end ValueError if it is of another hash."""
    found = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(CHUNK_BYTES):
            found.update(piece)
            yield piece
    if found.hexdigest() != sha256:
        raise ValueError(f"weights {file}: their sha256 is not {sha256}")


def chunks(store: Store, path: str) -> Iterator[bytes]:
    """An object in pieces: weights may be larger than memory."""
    size = store.size(path)
    if size is None:
        raise FileNotFoundError(path)
    for start in range(0, size, CHUNK_BYTES):
        yield store.read_range(path, start, min(size, start + CHUNK_BYTES))


def sha256_of_file(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
