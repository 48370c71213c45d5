"""What URLs, options, profiles and the environment mean."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from manifests.s3 import resolve
from manifests.storage import Location, connect, delta_options, delta_uri, locate
from tests.servers import S3Server, free_port


def test_no_secret_in_anything_that_is_printed() -> None:
    secret = {"key": "ACCESS", "secret": "SECRET", "token": "TOKEN"}
    location = locate("s3://bucket/x", secret)
    web = locate("https://me:PASSWORD@example.org/pictures?signature=SIGNED")
    shown = f"{location} {location!r} {web} {web!r} {[location, web]}"
    assert not any(word in shown for word in ("ACCESS", "SECRET", "TOKEN", "PASSWORD", "SIGNED"))
    assert "s3://bucket/x" in shown
    assert "https://example.org/pictures" in shown
    assert not any(word in repr(resolve(location)) for word in ("ACCESS", "SECRET", "TOKEN"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("zip::https://me:secret@h/x.zip?sig=1", "zip::https://h/x.zip?..."),
        ("zip://a/b.jpg::https://me:secret@h:81/x.zip", "zip://a/b.jpg::https://h:81/x.zip"),
        ("zip://*.jpg::simplecache::https://h/x.zip?sig=1", "zip://*.jpg::simplecache::https://h/x.zip?..."),
        ("https://me:sec@ret@h", "https://h"),
        ("https://h/a@b.jpg", "https://h/a@b.jpg"),
        ("/photos/a::b?c", "/photos/a::b?c"),
    ],
)
def test_each_url_of_a_chain_is_shown_without_secrets(url: str, shown: str) -> None:
    assert str(Location(url)) == shown
    assert repr(Location(url)) == f"Location({shown!r}, options [])"


def test_locations_have_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    for spelling in (".", here, f"{here}/", f"file://{here}/", f"{here}/x/.."):
        assert locate(spelling) == Location(here)
    for spelling in ("s3://b/x", "s3://b/x/", "s3a://b/x//", "s3:///b/x"):
        assert locate(spelling) == Location("s3://b/x")
    assert locate("s3://b", {"region": "r", "key": "k", "secret": "s"}).options == (
        ("key", "k"),
        ("region", "r"),
        ("secret", "s"),
    )
    assert pickle.loads(pickle.dumps(locate("s3://b", {"anon": "true"}))) == locate(
        "s3://b", {"anon": "true"}
    )


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("", {}, "local path"),
        ("://x", {}, "s3://"),
        ("nosuch://x", {}, "unknown scheme 'nosuch'"),
        ("s3://", {}, "bucket"),
        ("s3://KEY:SECRET@b/x", {}, "^credentials in an s3:// URL, expected them as options key and secret$"),
        ("/tmp", {"key": "x"}, "takes none"),
        ("s3://b", {"kye": "x"}, "endpoint_url"),
        ("s3://b", {"key": "x"}, "both or neither"),
        ("s3://b", {"addressing_style": "x"}, "path, virtual, auto"),
        ("s3://b", {"anon": "yes"}, "true or false"),
        ("s3://b", {"endpoint_url": "localhost:9000"}, "http://"),
    ],
)
def test_a_wrong_location_is_refused_in_words(url: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        locate(url, options)


def test_archives_live_on_local_disks_or_s3() -> None:
    with pytest.raises(ValueError, match="archives live on local disks or S3"):
        delta_options(locate("memory://x"))


def test_profiles_give_credentials_region_and_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (
        "[profile p]\nregion = eu-west-7\nendpoint_url = http://all\nservices = s\naws_access_key_id = pk\n"
    )
    config += "aws_secret_access_key = ps\n[services s]\ns3 =\n  endpoint_url = http://one\n"
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    found = resolve(locate("s3://b", {"profile": "p"}))
    assert (found.key, found.secret, found.region, found.endpoint_url) == (
        "pk",
        "ps",
        "eu-west-7",
        "http://one",
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://environment")
    assert resolve(locate("s3://b", {"profile": "p"})).endpoint_url == "http://environment"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3-only")
    assert resolve(locate("s3://b", {"profile": "p"})).endpoint_url == "http://s3-only"
    assert (
        resolve(locate("s3://b", {"profile": "p", "endpoint_url": "http://given"})).endpoint_url
        == "http://given"
    )
    with pytest.raises(ValueError, match="nobody"):
        resolve(locate("s3://b", {"profile": "nobody"}))


def test_no_credentials_are_said_in_words() -> None:
    with pytest.raises(PermissionError, match=r"anon=true"):
        connect(locate("s3://b"))


def test_expired_credentials_are_looked_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    for key in ("first", "second"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        assert delta_options(locate("s3://b"))["AWS_ACCESS_KEY_ID"] == key


def test_the_environment_does_not_leak_into_given_credentials(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = s3.location()
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    connect(location).write("x", b"1")
    options = delta_options(location)
    write_deltalake(f"{delta_uri(location)}/t", pa.table({"key": ["a"]}), storage_options=options)
    assert options["AWS_SESSION_TOKEN"] == ""
