"""Where a restore must not write: into the archive, and into the sources of its runs."""

import os

from manifests.archive import Archive
from manifests.plan import source_of
from manifests.storage import LOCAL, Location, locate

_HEAD_BYTES = 65_536  # the footer of a plan is smaller; its rows are not needed


def forbidden(archive: Archive, output: Location) -> tuple[str, ...]:
    """Folders below the output that are closed; ValueError where the output itself lies in such a folder."""
    top, closed = _folder(output), []
    for location in [archive.location, *_sources(archive)]:
        folder = _folder(location)
        if top.startswith(folder):
            raise ValueError(f"output {output}, expected one outside {location}")
        if folder.startswith(top):
            closed.append(folder.removeprefix(top))
    return tuple(closed)


def _sources(archive: Archive) -> list[Location]:
    """As far as plans can be read: a damaged or lost one names no source."""
    found = set()
    for run in archive.runs():
        path = f"runs/{run}/plan.parquet"
        size = archive.store.size(path)
        if size is None:
            continue
        source = source_of(archive.store.read_range(path, max(0, size - _HEAD_BYTES), size))
        if source is not None:
            found.add(source)
    return [locate(source) for source in sorted(found)]


def _folder(location: Location) -> str:
    url = os.path.realpath(location.url) if location.scheme == LOCAL else location.url
    return url.rstrip("/") + "/"
