"""A bucket's prefix as a store: one request an operation, one more a thousand objects listed."""

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TypedDict

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from fsspec.asyn import sync
from s3fs import S3FileSystem

from manifests.s3 import Access, resolve
from manifests.storage import Entry, Location

_ATTEMPTS = 6  # of a body that breaks off, and of a conditional put that meets another
# Codes of replies that say nothing of the object: with other credentials, or later, the same request may succeed.
_NOT_THE_OBJECTS = {
    "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "RequestTimeTooSkewed", "RequestTimeout", "SlowDown",
}  # fmt: skip


class _Object(TypedDict):
    Key: str
    Size: int
    LastModified: datetime
    ETag: str


class _BrokenOffError(ConnectionError):
    """The head of a reply came, and then not all of its body: botocore does not ask again by itself."""


class S3Store:
    """See `Store`. Keys are taken as they are: "a//b" and "a?versionId=1" are names like any other."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._bucket, _, root = location.url.removeprefix("s3://").partition("/")
        self._root = f"{root}/" if root else ""
        self._fs = _connect(resolve(location))

    def _of(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._root + path}

    def read(self, path: str) -> bytes:
        with _os_errors(self.location, path):
            return self._get(self._of(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        with _os_errors(self.location, path):
            try:
                return self._get({**self._of(path), "Range": f"bytes={start}-{end - 1}"})
            except OSError as error:
                if _status(error) == 416:  # the object ends before `start`
                    return b""
                raise

    def _get(self, request: dict[str, str]) -> bytes:
        """One GET. s3fs' `cat_file` asks for the size first, and reads a version out of some keys."""
        for attempt in range(_ATTEMPTS):
            try:
                content: bytes = sync(self._fs.loop, _body, self._fs, request)
                return content
            except _BrokenOffError:
                if attempt == _ATTEMPTS - 1:
                    raise
                _pause(attempt)
        raise AssertionError

    def write(self, path: str, content: bytes) -> None:
        with _os_errors(self.location, path):
            self._fs.call_s3("put_object", **self._of(path), Body=content)

    def write_pieces(self, path: str, pieces: Iterable[bytes]) -> None:
        """A multipart upload: there is nothing to be seen before it is completed."""
        with _os_errors(self.location, path):
            started = self._fs.call_s3("create_multipart_upload", **self._of(path))
            upload = {**self._of(path), "UploadId": started["UploadId"]}
            try:
                parts = []
                for number, piece in enumerate(pieces, 1):
                    sent = self._fs.call_s3("upload_part", **upload, PartNumber=number, Body=piece)
                    parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                self._fs.call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
            except BaseException:
                with suppress(
                    OSError, BotoCoreError, aiohttp.ClientError
                ):  # the bucket's lifecycle does it too
                    self._fs.call_s3("abort_multipart_upload", **upload)
                raise

    def create(self, path: str, content: bytes) -> bool:
        with _os_errors(self.location, path):
            for attempt in range(_ATTEMPTS):
                try:
                    self._fs.call_s3("put_object", **self._of(path), Body=content, IfNoneMatch="*")
                    return True
                except OSError as error:
                    # s3fs says FileExistsError only where the reply names the condition, as Amazon's does.
                    if isinstance(error, FileExistsError) or _status(error) == 412:
                        return False
                    if _status(error) != 409 or attempt == _ATTEMPTS - 1:
                        raise
                    _pause(attempt)  # another one is being created right now: it may yet fail
        raise AssertionError

    def exists(self, path: str) -> bool:
        return self.size(path) is not None

    def size(self, path: str) -> int | None:
        with _os_errors(self.location, path):
            try:
                return int(self._fs.call_s3("head_object", **self._of(path))["ContentLength"])
            except FileNotFoundError:
                return None

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Page by page: s3fs' `find` holds all of them, 1.2 GB for a million keys."""
        folder = f"{self._root}{prefix.strip('/')}/" if prefix.strip("/") else self._root
        token: dict[str, str] = {}
        while True:
            with _os_errors(self.location, prefix):
                page = self._fs.call_s3("list_objects_v2", Bucket=self._bucket, Prefix=folder, **token)
            yield from self._entries(page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _entries(self, found: Iterable[_Object]) -> Iterator[Entry]:
        for item in found:
            if not item["Key"].endswith("/"):  # consoles make such objects to show empty folders
                path, etag = item["Key"][len(self._root) :], item["ETag"].strip('"')
                yield Entry(path, item["Size"], int(item["LastModified"].timestamp()), etag)

    def delete(self, path: str) -> None:
        with _os_errors(self.location, path):
            self._fs.call_s3("delete_object", **self._of(path))


def _connect(access: Access) -> S3FileSystem:
    """One instance for equal arguments and process: connecting again is cheap, forks get their own."""
    fs = S3FileSystem(
        anon=access.key is None,
        key=access.key,
        secret=access.secret,
        token=access.token,
        endpoint_url=access.endpoint_url,
        client_kwargs={"region_name": access.region},
        config_kwargs=access.config(),
        use_listings_cache=False,
    )
    fs.retries = 1  # botocore retries already: five times five took 164 s to say that a server is not there
    return fs


async def _body(fs: S3FileSystem, request: dict[str, str]) -> bytes:
    reply = await fs._call_s3("get_object", **request)
    try:
        async with reply["Body"] as stream:
            content: bytes = await stream.read()
            return content
    except (aiohttp.ClientError, BotoCoreError, TimeoutError) as error:
        raise _BrokenOffError(f"the reply broke off: {error}") from error


def _status(error: OSError) -> int:
    """The HTTP status of the reply behind an s3fs error, 0 where there was none."""
    cause = error.__cause__
    return int(cause.response["ResponseMetadata"]["HTTPStatusCode"]) if isinstance(cause, ClientError) else 0


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, 0.1 * 2**attempt))


@contextmanager
def _os_errors(location: Location, path: str) -> Iterator[None]:
    """Errors of botocore and aiohttp, which are no OSErrors, become such; every message names the object."""
    where = f"{location}/{path}"
    try:
        yield
    except NoCredentialsError as error:
        raise PermissionError(f"{where}: {error}") from error
    except (BotoCoreError, aiohttp.ClientError) as error:
        raise ConnectionError(f"{where}: {error}") from error
    except OSError as error:
        if _status(error) in (429, *range(500, 600)) or _code(error) in _NOT_THE_OBJECTS:
            raise ConnectionError(f"{where}: {error.strerror or error}") from error
        raise _named(error, where) from error


def _code(error: OSError) -> str:
    """The store's own word for what is wrong, empty where it has said none."""
    cause = error.__cause__
    return str(cause.response["Error"].get("Code", "")) if isinstance(cause, ClientError) else ""


def _named(error: OSError, where: str) -> OSError:
    told = f"{where}: {error.strerror or error}"
    return type(error)(told) if error.errno is None else type(error)(error.errno, told)
