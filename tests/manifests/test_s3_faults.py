"""S3 replies that go wrong on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import aiohttp
import pytest
from botocore.exceptions import ClientError
from multidict import CIMultiDict, CIMultiDictProxy
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error
from yarl import URL

from manifests.other import _os_errors
from manifests.storage import Store, connect, locate
from tests.careless_s3 import Faults, careless_s3
from tests.servers import free_port


@contextmanager
def store_with(faults: Faults) -> Iterator[Store]:
    with careless_s3(faults) as server:
        yield connect(locate("s3://bucket/x", server.options))


def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    faults = Faults(bodies_broken_off=3)
    with store_with(faults) as store:
        store.write("a", b"0123456789" * 1000)
        assert store.read("a") == b"0123456789" * 1000
        assert faults.bodies_broken_off == 0


def test_a_body_that_always_breaks_off_is_an_error_and_never_a_short_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("manifests.s3_store._pause", lambda attempt: None)
    with store_with(Faults(bodies_broken_off=1000)) as store:
        store.write("a", b"0123456789" * 1000)
        with pytest.raises(ConnectionError, match="s3://bucket/x/a"):
            store.read("a")


def test_a_conflict_of_creators_is_tried_again_until_it_is_decided() -> None:
    faults = Faults(conflicts=2)
    with store_with(faults) as store:
        assert store.create("a", b"1")
        faults.conflicts = 1
        assert not store.create("a", b"2")
        assert faults.conflicts == 0


def test_refused_is_not_missing() -> None:
    faults = Faults()
    with store_with(faults) as store:
        store.write("a", b"1")
        faults.forbids = frozenset({"GET", "HEAD", "DELETE", "PUT"})
        for attempt in (
            lambda: store.read("a"),
            lambda: store.size("a"),
            lambda: list(store.list()),
            lambda: store.delete("a"),
            lambda: store.create("a", b""),
        ):
            with pytest.raises(PermissionError, match="s3://bucket/x"):
                attempt()


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = connect(locate("s3://bucket", {"key": "k", "secret": "s", "endpoint_url": endpoint}))
    backoff = mock.patch("botocore.retries.standard.ExponentialBackoff.delay_amount", return_value=0)
    with backoff as asked, pytest.raises(ConnectionError, match="bucket/x"):
        store.read("x")
    assert asked.call_count == 5


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ExpiredToken", 400),
        ("TokenRefreshRequired", 400),
        ("InvalidAccessKeyId", 403),
        ("RequestTimeTooSkewed", 403),
        ("SlowDown", 503),
        ("ServiceUnavailable", 503),
        ("InternalError", 500),
        ("TooManyRequests", 429),
    ],
)
def test_replies_that_say_nothing_of_the_object_are_connection_errors(code: str, status: int) -> None:
    """Such a reply is no reason to take the object for one that cannot be read."""
    reply = {
        "Error": {"Code": code, "Message": "told"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    with store_with(Faults()) as store:
        store.write("a", b"1")
        error = translate_boto_error(ClientError(reply, "GetObject"))
        answer = mock.patch.object(S3FileSystem, "_call_s3", side_effect=error)
        with answer, pytest.raises(ConnectionError, match=r"s3://bucket/x/a: .*told"):
            store.read("a")
        assert store.read("a") == b"1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, PermissionError),
        (403, PermissionError),
        (410, OSError),
        (429, ConnectionError),
        (503, ConnectionError),
    ],
)
def test_so_are_those_of_web_servers(status: int, kind: type[OSError]) -> None:
    place = locate("https://example.org/pictures")
    request = aiohttp.RequestInfo(URL(place.url), "GET", CIMultiDictProxy(CIMultiDict()), URL(place.url))
    with pytest.raises(OSError, match=f"{status} told") as raised, _os_errors(place):
        raise aiohttp.ClientResponseError(request, (), status=status, message="told")
    assert type(raised.value) is kind
