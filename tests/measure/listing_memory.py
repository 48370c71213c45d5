"""`python -m tests.measure.listing_memory [KEYS]`: peak resident memory of listing and planning, and of listing again.

The keys come through s3fs from a server that makes up the pages of a bucket. The first listing plans
all of them; then they are archived as synthetic records, and the second listing compares every one with the table.
"""

import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.servers import free_port

PAGE = 1000
LIMIT_MB = 300  # for a million keys


def key_of(number: int) -> str:
    return f"photos/{2012 + number // 90_000:04d}/{number // 700:06d}-harbour/IMG_{number % 700:04d}.JPG"


def serve(port: int, keys: int) -> None:
    """The listing of a bucket that nobody has."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            first = int(asked.get("continuation-token", ["0"])[0])
            end = min(first + PAGE, keys)
            items = "".join(
                f"<Contents><Key>{key_of(number)}</Key><Size>{3_000_000 + number}</Size>"
                f"<LastModified>2026-01-31T12:00:00.000Z</LastModified><ETag>&quot;{number:032x}&quot;</ETag>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
                for number in range(first, end)
            )
            more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < keys else ""
            truncated = "true" if end < keys else "false"
            page = (
                '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
                f"<IsTruncated>{truncated}</IsTruncated>{more}{items}</ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    ThreadingHTTPServer(("127.0.0.1", port), Pages).serve_forever()


def list_once(port: int, archive: str) -> None:
    """Lists, plans, and prints what it took: the process's peak is that of nothing else."""
    from manifests.archive import Archive
    from manifests.records import CodecSpec
    from manifests.storage import locate
    from pipelines.listing import Selection, plan_run

    options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{port}", "region": "us-east-1"}
    before = peak_mb()
    started = time.monotonic()
    source = locate("s3://bucket", options)
    _, changes = plan_run(
        Archive(locate(archive)),
        source,
        CodecSpec("synthetic", 1),
        Selection(),
        "none",
        None,
        "none",
        None,
        False,
        lambda n: 2000,
        False,
    )
    seconds = time.monotonic() - started
    print(
        f"{changes.new:>9,} new {changes.unchanged:>9,} unchanged: peak {peak_mb():4.0f} MB resident "
        f"({before:.0f} MB before), {seconds:.0f} s"
    )


def archive_all(archive: str) -> None:
    """Commits synthetic records of the newest plan."""
    from manifests.archive import Archive
    from manifests.commit import commit
    from manifests.part import Origin
    from manifests.plan import shards_of
    from manifests.records import EncodedImage, Record
    from manifests.storage import locate
    from pipelines.worker import write_part

    opened = Archive(locate(archive))
    plan = opened.plan(list(opened.runs())[-1])
    image = EncodedImage(bytes(140), None, 3000, 4000)
    parts = []
    for shard in shards_of(plan, [], shard_bytes=10**15):
        rows = plan.rows.slice(shard.first, len(shard)).to_pylist()
        records = [Record(row["key"], row["size"], row["mtime"], plan.head.spec, image) for row in rows]
        parts.append(write_part(opened.store, shard, records, Origin(0.0, "cpu")).part)
    commit(opened, plan, parts)


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1000


def main() -> None:
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    from manifests.archive import create
    from manifests.storage import locate

    port = free_port()
    server = get_context("spawn").Process(target=serve, args=(port, keys), daemon=True)
    server.start()
    time.sleep(1)
    with tempfile.TemporaryDirectory() as folder:
        create(locate(folder))
        module = [sys.executable, "-m", "tests.measure.listing_memory"]
        print(f"{keys:,} keys of an S3 bucket; the limit is {LIMIT_MB} MB for 1,000,000")
        subprocess.run([*module, "--list", str(port), folder], check=True)
        archive_all(folder)
        subprocess.run([*module, "--list", str(port), folder], check=True)
    server.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--list"]:
        list_once(int(sys.argv[2]), sys.argv[3])
    else:
        main()
