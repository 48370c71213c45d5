"""Python's way in: an archive, some of its rows, and their pictures."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

if (
    TYPE_CHECKING
):  # `import archiver` is cheap: what follows takes longer to import than `archiver --help` runs
    import pyarrow as pa
    from PIL.Image import Image

    from manifests.archive import Archive
    from manifests.part import Part
    from manifests.storage import Location
    from pipelines.decode import Decoder

Picture = tuple[str, "Image"]  # key, RGB of exactly the source's size


class LostImages(ValueError):
    """Records that are damaged, or cannot be decoded; all others were given."""

    def __init__(self, archive: str, lost: Sequence[tuple[str, str]]) -> None:
        first, why = lost[0]
        more = f", and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        super().__init__(f"{archive}: cannot restore {first!r} ({why}){more}")
        self.archive, self.lost = archive, tuple(lost)  # key, why

    def __reduce__(self) -> tuple[type["LostImages"], tuple[str, tuple[tuple[str, str], ...]]]:
        return LostImages, (self.archive, self.lost)  # workers' errors travel


def open(
    url: str | Path,
    options: Mapping[str, str] | None = None,
    device: str = "cpu",
    weights_cache: str | Path | None = None,
) -> "OpenArchive":
    """The archive at a folder or s3:// URL; ValueError where there is none.

    `options` say how to reach it (key, secret, endpoint_url, region, profile, ...), `device` where codecs run
    ("cpu", "cuda:0"), `weights_cache` where networks are kept once they were fetched.
    """
    from manifests.storage import locate
    from pipelines.select import open_archive
    from pipelines.weights import default_cache

    location = locate(str(url), options)
    open_archive(location)
    cache = default_cache() if weights_cache is None else Path(weights_cache).expanduser()
    return OpenArchive(location, device, cache)


@dataclass(frozen=True)
class OpenArchive:
    """An archive and how to decode it; each call looks at it as it is then."""

    location: "Location"
    device: str
    weights_cache: Path

    def select(
        self, where: str | None = None, limit: int | None = None, keys: Sequence[str] | None = None
    ) -> "Selection":
        """The images for which an SQL condition holds, in ascending order of their keys.

        Conditions see key, caption, width, height, source_bytes, mtime, bitstream_bytes, bpp, codec, spec, run and
        notes. ValueError for one that is not SQL.
        """
        from pipelines.select import open_archive, select

        if isinstance(keys, str | bytes) or not all(isinstance(key, str) for key in keys or ()):
            raise ValueError(f"keys {keys!r}, expected several texts: ['a/b.jpg', ...]")
        archive = open_archive(self.location)
        return Selection(self, select(archive, where, limit, keys), archive.parts)

    def failures(self) -> "pa.Table":
        """The keys that could not be archived, and why."""
        from pipelines.select import failures, open_archive

        return failures(open_archive(self.location))


@dataclass(frozen=True)
class Selection:
    """Some images of an archive: a sequence of (key, picture), decoded when asked for.

    A map-style dataset for torch's DataLoader: it travels to worker processes, forked or spawned, each of which
    connects to the archive and loads its codecs once. To be used by one thread at a time.
    """

    archive: OpenArchive
    table: "pa.Table"  # one row an image: key, caption, width, height, ...; no pixels
    parts: "Mapping[str, Part]" = field(repr=False, compare=False)  # of the archive as it was then
    _opened: "_Opened" = field(default_factory=lambda: _Opened(), repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Picture]:
        """In the order of `table`, up to the first that is lost; `restore` decodes several at once, and gives all."""
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> "Selection": ...

    def __getitem__(self, index: int | slice) -> "Picture | Selection":
        """One, decoded, or `LostImages`; of a slice a selection, not decoded."""
        if isinstance(index, slice):
            import pyarrow as pa

            places = pa.array(range(*index.indices(len(self))), pa.int64())
            return replace(self, table=self.table.take(places))
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Picture]:
        """As [self[i] for i in indices], decoded together; DataLoader calls this where it is defined."""
        keys = [self._key(index) for index in indices]
        found = dict(self._restored(keys))
        return [(key, found[key].copy()) for key in keys]  # an index may be there twice

    def restore(self) -> Iterator[Picture]:
        """All of them, as they lie in the archive. Where some are lost, the others come first, then `LostImages`."""
        return self._restored(self.table["key"].to_pylist())

    def _key(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return str(self.table["key"][index % len(self)].as_py())

    def _restored(self, keys: Sequence[str]) -> Iterator[Picture]:
        from PIL import Image

        from pipelines.restore import Lost, decoded_rows

        archive, decoder = self._opened.of(self.archive, self.parts)
        lost = []
        for found in decoded_rows(archive, keys, decoder):
            if isinstance(found, Lost):
                lost.append((found.key, found.why))
            else:
                yield found.key, Image.fromarray(found.pixels_hwc)
        if lost:
            raise LostImages(str(self.archive.location), lost)


class _Opened:
    """What a process keeps between pictures; stays behind when a selection travels, or its process forks."""

    def __init__(self) -> None:
        self._kept: tuple[int, Archive, Decoder] | None = None  # of the process of that number

    def __reduce__(self) -> tuple[type["_Opened"], tuple[()]]:
        return _Opened, ()

    def of(self, opened: OpenArchive, parts: "Mapping[str, Part]") -> "tuple[Archive, Decoder]":
        """The archive, and its codecs, each loaded once."""
        from archiver.codecs import load_codec
        from manifests.archive import Archive
        from pipelines.decode import Decoder
        from pipelines.select import remembering

        if self._kept is None or self._kept[0] != os.getpid():
            archive = remembering(Archive(opened.location, parts))
            decoder = Decoder(archive, load_codec, opened.weights_cache, opened.device)
            self._kept = os.getpid(), archive, decoder
        return self._kept[1:]
