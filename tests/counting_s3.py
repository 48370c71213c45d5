"""A proxy before an S3 server that counts: the only way to see what deltalake's own client reads.

In a process of its own: deltalake keeps Python's lock while it waits for replies.
"""

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers import S3Server


@dataclass(frozen=True)
class Requests:
    """What came through so far."""

    log: Path

    @property
    def seen(self) -> list[tuple[str, str, int]]:
        """Method, path without query, bytes of the reply."""
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]

    def forget(self) -> None:
        self.log.write_text("")

    def of_parts(self) -> list[int]:
        """Bytes of each GET of a part."""
        return [
            size
            for method, path, size in self.seen
            if method == "GET" and "/images/" in path and path.endswith(".parquet")
        ]


@contextmanager
def counting_s3(server: S3Server, log: Path) -> Iterator[tuple[S3Server, Requests]]:
    """The server at another address; requests pass as they are, signatures included."""
    log.write_text("")
    command = [sys.executable, "-m", "tests.counting_s3", server.endpoint, str(log)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield replace(server, endpoint=f"http://127.0.0.1:{port}"), Requests(log)
        finally:
            process.kill()


def _serve(endpoint: str, log: Path) -> None:
    behind, lock = urlsplit(endpoint), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(behind.hostname or "", behind.port or 80, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            content = reply.read()
            with lock, log.open("a") as file:
                file.write(json.dumps([self.command, urlsplit(self.path).path, len(content)]) + "\n")
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = reply.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = True
        print(proxy.server_address[1], flush=True)
        proxy.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
