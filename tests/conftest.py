"""Fixtures for all tests: `s3` is an S3 server; the tests that use it carry the mark `s3`."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import S3Server, moto_server, named_server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "s3: talks to an S3 server, moto's or the one in ARCHIVER_TEST_S3_ENDPOINT"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "s3" in getattr(item, "fixturenames", ()):
            item.add_marker("s3")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server on loopback: a moto process, or what the environment names (Ceph, in .ci/run)."""
    named = named_server()
    if named is not None:
        yield named
    else:
        with moto_server() as server:
            yield server


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of one Ray cluster for all tests: its two GPUs are only counted, actors can import tests."""
    import ray

    root = str(Path(__file__).parent.parent)
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        num_cpus=4,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the developer's own credentials, or asks a cloud's metadata service for some."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
