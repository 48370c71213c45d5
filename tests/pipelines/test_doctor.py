"""What the doctor says of healthy places, and of servers that do not keep what S3 promises."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.storage import Location, connect, locate
from pipelines.doctor import UNSAFE, Finding, probe
from tests.careless_s3 import Faults, careless_s3
from tests.servers import S3Server, free_port


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def careless(faults: Faults) -> Iterator[Location]:
    with careless_s3(faults) as server:
        yield locate("s3://bucket/archive", server.options)


def failed(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.words for finding in findings if not finding.ok}


def test_a_folder_is_fit_and_left_as_it_was(tmp_path: Path) -> None:
    findings = probe(locate(str(tmp_path)))
    assert failed(findings) == {}
    assert {f.name for f in findings} >= {"put if absent", "put if absent race", "listing", "free space"}
    assert list(tmp_path.iterdir()) == []
    assert failed(probe(locate(str(tmp_path / "not yet there")))) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_real_bucket_is_fit_and_left_as_it_was(s3: S3Server) -> None:
    location = s3.location("archive")
    assert failed(probe(location)) == {}
    assert list(connect(location).list()) == []


def test_the_careless_server_without_faults_is_fit(careless: Location) -> None:
    """Otherwise the tests below would prove nothing."""
    assert failed(probe(careless)) == {}
    assert list(connect(careless).list()) == []


def test_a_server_that_ignores_the_condition_is_called_unsafe(faults: Faults, careless: Location) -> None:
    faults.honours_condition = False
    found = failed(probe(careless))
    assert found.keys() == {"put if absent", "put if absent race"}
    assert all(UNSAFE in words for words in found.values())
    assert list(connect(careless).list()) == []


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        (replace(Faults(), honours_range=False), {"range read"}),
        (replace(Faults(), clock_skew_seconds=1000), {"clock"}),
        (replace(Faults(), deletes=False), {"delete"}),
    ],
)
def test_each_broken_promise_has_its_own_words(wrong: Faults, names: set[str]) -> None:
    with careless_s3(wrong) as server:
        assert failed(probe(locate("s3://bucket", server.options))).keys() == names


def test_stale_listings_are_found(faults: Faults, careless: Location) -> None:
    faults.lists_fresh_objects = False
    assert "encoded again" in failed(probe(careless))["listing"]


def test_a_refusal_is_said_in_words_and_ends_the_probe(faults: Faults, careless: Location) -> None:
    faults.forbids = frozenset({"PUT"})
    (finding,) = probe(careless)
    assert (finding.ok, finding.words.startswith("not allowed: s3://bucket/archive/")) == (False, True)


def test_a_missing_right_is_found_where_it_is_needed(faults: Faults, careless: Location) -> None:
    faults.forbids = frozenset({"DELETE"})
    assert failed(probe(careless)).keys() == {"delete"}


def test_what_cannot_hold_an_archive_is_said_at_once() -> None:
    assert "archives live on" in failed(probe(locate("memory://x")))["credentials"]
    assert "anon=true" in failed(probe(locate("s3://bucket")))["credentials"]


def test_a_server_that_is_not_there_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    (finding,) = probe(locate("s3://bucket", options))
    assert finding.words.startswith("cannot be reached")
