"""The contract of `Store`, over a folder and an S3 bucket; and what is special to each kind of store."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from unittest import mock

import fsspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from manifests.local import UNFINISHED
from manifests.other import mtime_of
from manifests.storage import Location, Store, connect, delta_options, delta_uri, locate
from tests.servers import S3Server

ODD_KEYS = [
    "a b.jpg",
    "ä/日本.png",
    "a%20b.jpg",
    "x?versionId=1.jpg",
    "plus+and&hash#.jpg",
    "[1]*.jpg",
    "~t",
    ".hidden",
]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        (tmp_path / "root").mkdir()
        return locate(str(tmp_path / "root"))
    server: S3Server = request.getfixturevalue("s3")
    return server.location("some/root")


@pytest.fixture
def store(location: Location) -> Store:
    return connect(location)


def test_read_inverts_write_and_the_last_write_counts(store: Store) -> None:
    store.write("runs/a/plan.parquet", b"first")
    store.write("runs/a/plan.parquet", b"second")
    assert store.read("runs/a/plan.parquet") == b"second"
    store.write("empty", b"")
    assert store.read("empty") == b""
    assert (store.size("empty"), store.size("runs/a/plan.parquet"), store.size("runs/a")) == (0, 6, None)


def test_pieces_become_one_object_or_none(store: Store) -> None:
    pieces = [bytes([number]) * 5_300_000 for number in range(2)] + [b"end"]
    store.write_pieces("long", pieces)
    assert store.read("long") == b"".join(pieces)

    for path in ("long", "another"):
        with pytest.raises(ValueError, match="torn"):
            store.write_pieces(path, _torn(pieces[0]))
    assert store.size("long") == 10_600_003
    assert [entry.path for entry in store.list()] == ["long"]


def _torn(piece: bytes) -> Iterator[bytes]:
    yield piece
    raise ValueError("torn")


@pytest.mark.s3
def test_a_torn_upload_leaves_no_parts_behind(s3: S3Server) -> None:
    location = s3.location("root")
    with pytest.raises(ValueError, match="torn"):
        connect(location).write_pieces("long", _torn(b"x" * 5_300_000))
    client = s3.client()
    assert "Uploads" not in client.list_multipart_uploads(Bucket=location.url.split("/")[2])
    client.close()


def test_a_range_is_cut_as_slices_are(store: Store) -> None:
    content = bytes(range(256))
    store.write("x", content)
    for start, end in [(0, 256), (3, 4), (250, 999), (5, 5), (256, 300), (0, 1)]:
        assert store.read_range("x", start, end) == content[start:end]


def test_what_is_missing_is_a_file_not_found_error(store: Store) -> None:
    store.write("folder/x", b"1")
    for path in ("nothing", "folder/nothing", "no/folder"):
        assert not store.exists(path)
        assert store.size(path) is None
        with pytest.raises(FileNotFoundError):
            store.read(path)
        with pytest.raises(FileNotFoundError):
            store.read_range(path, 0, 1)
    assert list(store.list("nowhere")) == []


def test_exactly_one_creator_wins(store: Store) -> None:
    assert store.create("claims/first", b"a")
    assert not store.create("claims/first", b"b")
    assert store.read("claims/first") == b"a"
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(3):
            won = list(pool.map(lambda n, r=round_: store.create(f"claims/{r}", bytes([n])), range(8)))
            assert won.count(True) == 1
            assert store.read(f"claims/{round_}") == bytes([won.index(True)])
    assert sorted(e.path for e in store.list("claims")) == [
        "claims/0",
        "claims/1",
        "claims/2",
        "claims/first",
    ]


def test_a_listing_tells_path_size_and_time_at_any_depth(store: Store) -> None:
    now = time.time()
    for path in ("a", "b/c", "b/d/e.jpg", "bb/f"):
        store.write(path, path.encode())
    entries = list(store.list())
    assert sorted((e.path, e.size) for e in entries) == [("a", 1), ("b/c", 3), ("b/d/e.jpg", 9), ("bb/f", 4)]
    assert all(abs(entry.mtime - now) < 120 for entry in entries)
    assert (
        sorted(e.path for e in store.list("b"))
        == sorted(e.path for e in store.list("b/"))
        == ["b/c", "b/d/e.jpg"]
    )


def test_odd_names_come_back_as_they_are(store: Store) -> None:
    for key in ODD_KEYS:
        store.write(key, key.encode())
    assert sorted(entry.path for entry in store.list()) == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        assert (store.read(key), store.size(key)) == (key.encode(), len(key.encode()))
        assert not store.create(key, b"")


def test_delete_leaves_no_object_and_may_be_repeated(store: Store) -> None:
    for path in ("a/b/c", "a/d"):
        store.write(path, b"1")
    store.delete("a/b/c")
    store.delete("a/b/c")
    store.delete("never/was")
    assert [entry.path for entry in store.list()] == ["a/d"]


def test_many_threads_and_forks_and_spawns_work_at_once(store: Store, location: Location) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.write(f"t/{n}", bytes([n])), range(40)))
        assert list(pool.map(lambda n: store.read(f"t/{n}"), range(40))) == [bytes([n]) for n in range(40)]
    subprocess.run([sys.executable, "-c", WRITE_PICKLED, pickle.dumps(location).hex()], check=True)
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            connect(location).write("forked", b"here")
        os._exit(0)
    os.waitpid(child, 0)
    assert (store.read("forked"), store.read("spawned")) == (b"here", b"here")


WRITE_PICKLED = """
import pickle, sys
from manifests.storage import connect
connect(pickle.loads(bytes.fromhex(sys.argv[1]))).write("spawned", b"here")
"""


def test_delta_lake_finds_its_table_through_our_options(location: Location) -> None:
    table, options = f"{delta_uri(location)}/images", delta_options(location)
    write_deltalake(table, pa.table({"key": ["a"]}), storage_options=options)
    write_deltalake(table, pa.table({"key": ["b"]}), mode="append", storage_options=options)
    assert DeltaTable(table, storage_options=options).version() == 1
    assert any(e.path.startswith("images/_delta_log/") for e in connect(location).list("images"))


def test_a_public_bucket_is_read_without_credentials(s3: S3Server) -> None:
    location = s3.location()
    connect(location).write("x.jpg", b"1")
    policy = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": "*",
    }
    bucket = location.url.removeprefix("s3://")
    policy["Resource"] = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    client = s3.client()
    client.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    )
    client.close()
    public = connect(locate(location.url, {"anon": "true", "endpoint_url": s3.endpoint}))
    assert [entry.path for entry in public.list()] == ["x.jpg"]
    assert public.read("x.jpg") == b"1"


def test_a_missing_bucket_is_told_from_a_missing_object(s3: S3Server) -> None:
    nowhere = connect(locate("s3://no-such-bucket-here/x", s3.options))
    for attempt in (lambda: list(nowhere.list()), lambda: nowhere.read("a")):
        with pytest.raises(FileNotFoundError, match="no-such-bucket-here"):
            attempt()
    with pytest.raises(FileNotFoundError):
        nowhere.write("a", b"")


def test_more_than_a_page_of_objects_is_listed_once_each(s3: S3Server) -> None:
    location = s3.location("p")
    store = connect(location)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.write(f"{n:05d}", b""), range(1100)))
    assert [entry.path for entry in store.list()] == [f"{n:05d}" for n in range(1100)]
    assert all(entry.etag == "d41d8cd98f00b204e9800998ecf8427e" for entry in store.list())


def test_keys_that_look_like_paths_of_another_object_are_not_rewritten(s3: S3Server) -> None:
    keys = ["a//b", "a/../b", "./b", "b", "b?", "b%2F"]
    store = connect(s3.location())
    for key in keys:
        store.write(key, key.encode())
    assert sorted(entry.path for entry in store.list()) == sorted(keys)
    assert [store.read(key) for key in keys] == [key.encode() for key in keys]


def test_folder_markers_are_no_objects(s3: S3Server) -> None:
    location = s3.location()
    client = s3.client()
    client.put_object(Bucket=location.url.removeprefix("s3://"), Key="empty/", Body=b"")
    assert list(connect(location).list()) == []
    client.close()


WRITE_FOREVER = """
import sys
from manifests.storage import connect, locate
store = connect(locate(sys.argv[1]))
print("ready", flush=True)
while True:
    store.write("images/run/part.parquet", bytes([7]) * 4_000_000)
"""


def test_a_kill_leaves_no_half_written_object(tmp_path: Path) -> None:
    store = connect(locate(str(tmp_path)))
    for delay in (0.0, 0.003, 0.01, 0.02, 0.03):
        command = [sys.executable, "-c", WRITE_FOREVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        for entry in store.list("images"):
            assert (entry.path, entry.size) == ("images/run/part.parquet", 4_000_000)


def test_listings_leave_out_only_our_own_unfinished_files(tmp_path: Path) -> None:
    (tmp_path / f"{UNFINISHED}1-2").write_bytes(b"half")
    (tmp_path / ".hidden.jpg").write_bytes(b"1")
    (tmp_path / "outside").mkdir()
    (tmp_path / "circle").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "link.jpg").symlink_to(tmp_path / ".hidden.jpg")
    assert sorted(entry.path for entry in connect(locate(str(tmp_path))).list()) == [
        ".hidden.jpg",
        "link.jpg",
    ]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = connect(locate(str(tmp_path)))
    with (
        mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")),
        pytest.raises(OSError, match="space"),
    ):
        store.write("x", b"1")
    assert list(tmp_path.iterdir()) == []


def test_paths_do_not_leave_the_location(tmp_path: Path) -> None:
    for path in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(ValueError, match="below the location"):
            connect(locate(str(tmp_path))).read(path)


def test_a_missing_or_wrong_source_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        list(connect(locate(str(tmp_path / "typo"))).list())
    with pytest.raises(NotADirectoryError):
        list(connect(locate(str(tmp_path / "file"))).list())


def test_any_fsspec_filesystem_is_a_source(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/pictures/a/b.jpg", b"memory")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(zipfile.ZipInfo("a/b.jpg", (2024, 5, 1, 0, 0, 10)), b"zipped")
    (tmp_path / "p.zip").write_bytes(packed.getvalue())
    for url, content in [("memory://pictures", b"memory"), (f"zip://::{tmp_path}/p.zip", b"zipped")]:
        store = connect(locate(url))
        (entry,) = store.list()
        assert (entry.path, entry.size, store.read(entry.path)) == ("a/b.jpg", 6, content)
        assert (store.read_range("a/b.jpg", 1, 3), store.size("a/b.jpg")) == (content[1:3], 6)
        assert (store.size("none"), store.exists("a"), list(store.list("none"))) == (None, False, [])
        with pytest.raises(ValueError, match="create"):
            store.create("x", b"")
    assert entry.mtime == 1714521610


def test_times_come_in_many_types() -> None:
    assert mtime_of({"updated": "2024-05-01T00:00:10Z"}) == mtime_of({"mtime": 1714521610.9}) == 1714521610
    assert mtime_of({"name": "x"}) == 0


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_a_time_without_a_zone_is_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = [
            mtime_of({"created": "2024-05-01T00:00:10"}),
            mtime_of({"created": datetime(2024, 5, 1, 0, 0, 10)}),
            mtime_of({"created": "2024-05-01T09:00:10+09:00"}),
            mtime_of({"date_time": (2024, 5, 1, 0, 0, 10)}),
        ]
    time.tzset()
    assert found == [1714521610] * 4


@pytest.mark.parametrize("told", ["Wed, 01 May 2024 00:00:10 GMT", "", float("nan"), (1980, 0, 0, 0, 0, 0)])
def test_a_time_in_another_notation_is_not_told(told: object) -> None:
    assert mtime_of({"date_time": told}) == 0
    assert mtime_of({"last_modified": told, "created": "2024-05-01T00:00:10Z"}) == 1714521610
