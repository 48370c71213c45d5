"""A tiny S3 server with faults that real ones have had: it keeps objects in memory and promises nothing."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.servers import S3Server


@dataclass
class Faults:
    """What goes wrong; all of it can be changed while the server runs."""

    honours_condition: bool = True
    honours_range: bool = True
    lists_fresh_objects: bool = True
    deletes: bool = True
    clock_skew_seconds: float = 0.0
    bodies_broken_off: int = 0  # how many of the next replies end in the middle
    conflicts: int = 0  # how many of the next conditional puts are answered 409
    forbids: frozenset[str] = field(default_factory=frozenset)  # methods answered 403


@contextmanager
def careless_s3(faults: Faults) -> Iterator[S3Server]:
    """One bucket space for any credentials, as wrong as `faults` says."""
    objects: dict[str, tuple[bytes, float]] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def reply(
            self, status: int, body: bytes = b"", more: dict[str, str] | None = None, cut: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(more or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut

        def fail(self, status: int, code: str) -> None:
            self.reply(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

        def key(self) -> str:
            return unquote(urlsplit(self.path).path).lstrip("/")

        def forbidden(self) -> bool:
            if self.command in faults.forbids:
                self.fail(403, "AccessDenied")
            return self.command in faults.forbids

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.forbidden():
                return None
            conditional = self.headers.get("If-None-Match") == "*"
            with lock:
                if conditional and faults.conflicts > 0:
                    faults.conflicts -= 1
                    return self.fail(409, "ConditionalRequestConflict")
                if conditional and faults.honours_condition and self.key() in objects:
                    return self.fail(412, "PreconditionFailed")
                objects[self.key()] = (body, time.time() + faults.clock_skew_seconds)
            return self.reply(200, more={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

        def do_GET(self) -> None:
            if self.forbidden():
                return None
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" in query:
                return self.reply(200, self.listing(query))
            if self.key() not in objects:
                return self.fail(404, "NoSuchKey")
            body, _ = objects[self.key()]
            if "Range" in self.headers and faults.honours_range:
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                body = body[int(first) : int(last) + 1]
            cut = self.command == "GET" and faults.bodies_broken_off > 0
            faults.bodies_broken_off -= cut
            return self.reply(200, body, cut=cut)

        do_HEAD = do_GET

        def listing(self, query: dict[str, list[str]]) -> bytes:
            prefix = f"{self.key().rstrip('/')}/{query.get('prefix', [''])[0]}"
            found = ""
            for name, (body, mtime) in sorted(objects.items()):
                if name.startswith(prefix) and faults.lists_fresh_objects:
                    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(mtime))
                    found += f"<Contents><Key>{escape(name.partition('/')[2])}</Key><Size>{len(body)}</Size>"
                    found += f'<LastModified>{stamp}</LastModified><ETag>"0"</ETag></Contents>'
            return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()

        def do_DELETE(self) -> None:
            if self.forbidden():
                return
            if faults.deletes:
                objects.pop(self.key(), None)
            self.reply(204)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield S3Server(f"http://127.0.0.1:{server.server_address[1]}", "anyone", "anything")
        finally:
            server.shutdown()
