from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.storage import Location, connect, locate
from pipelines.captions import BadCaption, open_captions, read_caption_table
from tests.servers import S3Server

PIXELS = np.zeros((1, 1, 3), np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Location:
    (tmp_path / "source").mkdir()
    return locate(f"{tmp_path}/source")


def sidecar(source: Location, key: str = "a/photo.jpg") -> str | None:
    return open_captions("sidecar", connect(source)).caption(key, "planned", PIXELS)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a/photo.txt", b"two cats\n", "two cats"),
        ("a/photo.txt", "\ufeffzwei K\u00e4tzchen".encode(), "zwei K\u00e4tzchen"),
        ("a/photo.txt", b"  \n", None),
        ("a/photo.json", b'{"caption": "two cats", "id": 3}', "two cats"),
        ("a/photo.json", b'"two cats"', "two cats"),
        ("a/photo.jpg.txt", b"another's", None),
        ("photo.txt", b"another's", None),
    ],
)
def test_a_sidecar_lies_beside_its_image(
    source: Location, name: str, content: bytes, expected: str | None
) -> None:
    connect(source).write(name, content)
    assert sidecar(source) == expected


def test_a_text_comes_before_a_json(source: Location) -> None:
    connect(source).write("a/photo.txt", b"text")
    connect(source).write("a/photo.json", b'"json"')
    assert sidecar(source) == "text"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a/photo.txt", b"\xff\xfe\x00", "a/photo.txt: 'utf-8' codec"),
        ("a/photo.json", b"{", "a/photo.json: Expecting"),
        ("a/photo.json", b'{"text": "x"}', 'text under "caption"'),
        ("a/photo.txt", b"x" * 1_000_001, "1,000,001 bytes, the limit is 1,000,000"),
        ("a/photo.json", b'{"caption": "cat \\ud83d"}', "a/photo.json: 'utf-8' codec can't encode"),
    ],
)
def test_a_sidecar_that_cannot_be_read_says_why(
    source: Location, name: str, content: bytes, words: str
) -> None:
    connect(source).write(name, content)
    with pytest.raises(BadCaption, match=words):
        sidecar(source)


def test_what_cannot_be_a_sidecar_is_none(source: Location) -> None:
    """Folders, and names that no file can have."""
    connect(source).write("a/photo.txt/b.jpg", b"")
    connect(source).write("a/photo.json", b'"two cats"')
    assert sidecar(source) == "two cats"
    assert sidecar(source, "x" * 251 + ".jpg") is None


class Refusing:
    """A source, or one that does not answer."""

    def __init__(self, error: OSError) -> None:
        self.error, self.asked = error, list[str]()

    def read(self, path: str) -> bytes:
        self.asked.append(path)
        raise self.error


def test_a_sidecar_that_may_not_be_read_costs_the_caption_and_a_store_that_is_away_the_run() -> None:
    with pytest.raises(BadCaption, match=r"a/photo\.txt: .*Permission denied"):
        open_captions("sidecar", Refusing(PermissionError(13, "Permission denied"))).caption(
            "a/photo.jpg", None, PIXELS
        )
    with pytest.raises(ConnectionError):
        open_captions("sidecar", Refusing(ConnectionError())).caption("a/photo.jpg", None, PIXELS)


def test_keys_with_two_slashes_have_sidecars_of_their_own() -> None:
    bucket = Refusing(FileNotFoundError())
    assert open_captions("sidecar", bucket).caption("a//b.c.jpg", None, PIXELS) is None
    assert bucket.asked == ["a//b.c.txt", "a//b.c.json"]


def test_planned_captions_and_none_come_from_the_plan(source: Location) -> None:
    connect(source).write("a/photo.txt", b"two cats")
    for name in ("none", "table"):
        captions = open_captions(name, connect(source))
        assert captions.caption("a/photo.jpg", None, PIXELS) is None
        assert captions.caption("a/photo.jpg", "planned", PIXELS) == "planned"


def test_other_sources_of_captions_are_refused(source: Location) -> None:
    with pytest.raises(ValueError, match="captions 'model', expected one of none, sidecar, table"):
        open_captions("model", connect(source))


TABLE = pa.table(
    {"id": [1, 2, 3], "caption": ["a, b", None, "drei\nZeilen"], "key": ["a.png", "b.png", "c/\u00fc.png"]}
)
CSV = 'id,key,caption\n1,a.png,"a, b"\n2,b.png,\n3,c/\u00fc.png,"drei\nZeilen"\n'


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_gives_keys_their_captions(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"captions.{kind}"
    if kind == "parquet":
        pq.write_table(TABLE, file)
    else:
        file.write_text(CSV)
    found = read_caption_table(locate(str(file)))
    assert found.to_pydict() == {
        "key": ["a.png", "b.png", "c/\u00fc.png"],
        "caption": ["a, b", None, "drei\nZeilen"],
    }


def test_a_parquet_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(TABLE.drop_columns(["caption"]), tmp_path / "captions.parquet")
    with pytest.raises(ValueError, match="expected Parquet or CSV with columns key and caption"):
        read_caption_table(locate(f"{tmp_path}/captions.parquet"))


def test_a_table_in_a_bucket_is_read(s3: S3Server) -> None:
    folder = s3.location("tables")
    connect(folder).write("captions.csv", CSV.encode())
    assert len(read_caption_table(Location(f"{folder.url}/captions.csv", folder.options))) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("key,text\na,b\n", "expected Parquet or CSV with columns key and caption"),
        ("key,caption\na,b\na,c\n", "expected each key once"),
        ("", "expected Parquet or CSV"),
    ],
)
def test_a_table_of_other_columns_or_with_a_key_twice_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "captions.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        read_caption_table(locate(f"{tmp_path}/captions.csv"))
