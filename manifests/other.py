"""Any other fsspec location as a source: gs://, https://, memory://, zip:// and so on."""

import calendar
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import aiohttp
import fsspec

from manifests.storage import Entry, Location

Info = dict[str, object]  # what a filesystem tells of one file; every one tells other things


class OtherStore:
    """See `Store`. `create` is refused: what keeps two writers apart differs between these filesystems."""

    def __init__(self, location: Location) -> None:
        self.location = location
        with _os_errors(location):
            self._fs, root = fsspec.core.url_to_fs(location.url, **dict(location.options))
        self._root = str(root).rstrip("/")

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if self._root else path

    def read(self, path: str) -> bytes:
        with _os_errors(self.location):
            content: bytes = self._fs.cat_file(self._at(path))
            return content

    def read_range(self, path: str, start: int, end: int) -> bytes:
        with _os_errors(self.location):
            content: bytes = self._fs.cat_file(self._at(path), start=start, end=end)
            return content

    def write(self, path: str, content: bytes) -> None:
        with _os_errors(self.location):
            self._fs.pipe_file(self._at(path), content)

    def write_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        raise ValueError(f"write {path!r} in pieces at {self.location}: only local disks and S3 can do that")

    def create(self, path: str, content: bytes) -> bool:
        raise ValueError(
            f"create {path!r} at {self.location}: only local disks and S3 can create conditionally"
        )

    def exists(self, path: str) -> bool:
        with _os_errors(self.location):
            return bool(self._fs.isfile(self._at(path)))

    def size(self, path: str) -> int | None:
        with _os_errors(self.location):
            return int(self._fs.size(self._at(path))) if self._fs.isfile(self._at(path)) else None

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with _os_errors(self.location):
            if not self._fs.exists(self._root or "/"):
                raise FileNotFoundError(str(self.location))
            top = self._at(prefix.strip("/")) if prefix.strip("/") else self._root
            # A web server lists a folder only under its name with the slash.
            if self._fs.isdir(f"{top}/"):
                for _, _, files in self._fs.walk(f"{top}/", detail=True, on_error="raise"):
                    for info in files.values():
                        yield self._entry(info)

    def _entry(self, info: Info) -> Entry:
        name = str(info["name"])
        path = name.lstrip("/").removeprefix(self._root.lstrip("/")).removeprefix("/")
        size, etag = info.get("size"), info.get("ETag") or info.get("etag")
        if size is None:  # web servers' folder pages do not tell
            size = self._fs.size(name)
        return Entry(path, int(str(size)), mtime_of(info), str(etag).strip('"') if etag else None)

    def delete(self, path: str) -> None:
        with _os_errors(self.location):
            if self._fs.isfile(self._at(path)):
                self._fs.rm_file(self._at(path))


def mtime_of(info: Info) -> int:
    """Seconds since 1970, UTC, under whichever name and type the filesystem tells it; 0 where it does not.

    Example: mtime_of({"updated": "2024-05-01T00:00:10Z"}) -> 1714521610
    """
    for name in ("mtime", "LastModified", "last_modified", "updated", "date_time", "modified", "created"):
        with suppress(ValueError):  # some other notation; zip: a month 0
            match info.get(name):
                case int() | float() as seconds:
                    return int(seconds)
                case str() as text:
                    return _seconds(datetime.fromisoformat(text))
                case datetime() as time:
                    return _seconds(time)
                case tuple() as fields:  # zip: year .. second, no zone
                    return calendar.timegm((*fields[:6], 0, 0, 0))
    return 0


def _seconds(time: datetime) -> int:
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


@contextmanager
def _os_errors(location: Location) -> Iterator[None]:
    """Errors of web requests, which are no OSErrors, become such."""
    try:
        yield
    except aiohttp.ClientResponseError as error:
        kind: type[OSError] = PermissionError if error.status in (401, 403) else OSError
        if error.status == 429 or error.status >= 500:  # says nothing of the object
            kind = ConnectionError
        raise kind(f"{location}: {error.status} {error.message}") from error
    except aiohttp.ClientError as error:
        raise ConnectionError(f"{location}: {error}") from error
