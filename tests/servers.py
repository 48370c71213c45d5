"""S3 servers for tests: one that is started here, or a real one that the environment names."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config

from manifests.storage import Location, locate

START_SECONDS = 60  # importing moto takes 2 s alone, and many times that on a busy machine


@dataclass(frozen=True)
class S3Server:
    """An S3 server, and a user who may do everything there."""

    endpoint: str
    key: str
    secret: str

    @property
    def options(self) -> dict[str, str]:
        """For `locate`."""
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint, "region": "us-east-1"}

    def client(self) -> BaseClient:
        """A plain botocore client: it knows nothing of our own code."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def bucket(self) -> str:
        """The name of a fresh bucket."""
        name = f"archiver-test-{secrets.token_hex(6)}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def location(self, prefix: str = "", more: Mapping[str, str] | None = None) -> Location:
        """Below a prefix of a fresh bucket."""
        return locate(f"s3://{self.bucket()}/{prefix}", {**self.options, **(more or {})})


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """An in-memory S3 server in a process of its own: it takes any key."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/", process)
            yield S3Server(f"http://127.0.0.1:{port}", "test", "test-secret")
        finally:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"moto server ended with {process.returncode}: is moto[server] installed?")
        try:
            urlopen(url, timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"moto server does not answer within {START_SECONDS} s")


def named_server() -> S3Server | None:
    """The server that ARCHIVER_TEST_S3_ENDPOINT, _KEY and _SECRET name, as ceph_up.sh prints them."""
    endpoint = os.environ.get("ARCHIVER_TEST_S3_ENDPOINT")
    if endpoint is None:
        return None
    return S3Server(endpoint, os.environ["ARCHIVER_TEST_S3_KEY"], os.environ["ARCHIVER_TEST_S3_SECRET"])
