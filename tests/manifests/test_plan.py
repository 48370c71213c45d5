import hashlib
import io
import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.plan import (
    PLAN_SCHEMA,
    Plan,
    PlanHead,
    Shard,
    batches_of,
    head_of_plan,
    is_plan_of,
    open_ranges,
    plan_of,
    plan_to_parquet,
    shards_of,
)

HEAD = PlanHead("/photos", "0123456789abcdef", "2026-01-31T23:59:59Z", 3, "none", False, 10)


def plan_rows(sizes: list[int]) -> pa.Table:
    count = len(sizes)
    columns = {
        "key": [f"{number:06d}.jpg" for number in range(count)],
        "size": sizes,
        "mtime": [1_700_000_000 + number for number in range(count)],
        "etag32": [None if number % 3 else number - 50 for number in range(count)],
        "replaces": [None if number % 5 else "20260101T000000-0123456789" for number in range(count)],
        "caption": [None if number % 2 else f"caption {number}" for number in range(count)],
    }
    return pa.Table.from_pydict(columns, schema=PLAN_SCHEMA)


def test_a_plan_comes_back_under_the_name_of_its_run() -> None:
    rows = plan_rows([100] * 1000)
    run, content = plan_to_parquet(HEAD, rows)
    assert run.startswith("20260131T235959-")
    assert is_plan_of(run, content)
    assert plan_of(run, content) == Plan(run, HEAD, rows)
    assert head_of_plan(run, content) == HEAD
    columns = pa.Table.from_batches(batches_of(run, content, ["key", "etag32"]))
    assert columns.equals(rows.select(["key", "etag32"]))


def test_a_plan_with_a_flipped_bit_is_refused() -> None:
    run, content = plan_to_parquet(HEAD, plan_rows([100] * 10))
    for place in (5, len(content) // 2, len(content) - 20):
        damaged = content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]
        with pytest.raises(ValueError, match=f"plan of run {run} is damaged"):
            plan_of(run, damaged)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (asdict(HEAD), "plan format None of run .*, this program reads 1"),
        ({"format": 2, "sources": []}, "plan format 2 of run .*, this program reads 1"),
        ({"format": 1, **asdict(HEAD), "seed": 7}, r"says \['seed'\], which only a newer program knows"),
        ({"format": 1, "source": "/photos"}, r"does not say \['spec', 'created', .*'shard_records'\]"),
        ({"format": 1, **asdict(HEAD), "shard_records": "ten"}, "says shard_records 'ten', expected int"),
        ({"format": 1, **asdict(HEAD), "keep": None}, "says keep None, expected str"),
        ([1], "is list in JSON, expected an object"),
    ],
)
def test_a_plan_of_another_program_is_refused(told: object, words: str) -> None:
    sink = io.BytesIO()
    pq.write_table(plan_rows([100]).replace_schema_metadata({"archiver": json.dumps(told)}), sink)
    content = sink.getvalue()
    run = f"20260131T235959-{hashlib.sha256(content).hexdigest()[:10]}"
    for read in (plan_of, head_of_plan):
        with pytest.raises(ValueError, match=words):
            read(run, content)


def test_the_first_plans_do_not_say_what_is_kept() -> None:
    told = {name: value for name, value in asdict(HEAD).items() if name != "keep"}
    sink = io.BytesIO()
    rows = plan_rows([100]).replace_schema_metadata({"archiver": json.dumps({"format": 1, **told})})
    pq.write_table(rows, sink)
    run = f"20260131T235959-{hashlib.sha256(sink.getvalue()).hexdigest()[:10]}"
    assert head_of_plan(run, sink.getvalue()) == HEAD


def test_a_plan_takes_few_bytes_a_key() -> None:
    _, content = plan_to_parquet(HEAD, plan_rows([100 + number * 7919 % 5000 for number in range(20_000)]))
    assert len(content) < 20 * 20_000


@pytest.mark.parametrize(
    ("count", "committed", "expected"),
    [
        (10, [(2, 4), (7, 7)], [(0, 1), (5, 6), (8, 9)]),
        (10, [], [(0, 9)]),
        (10, [(0, 9)], []),
        (10, [(5, 9), (0, 4)], []),
        (10, [(3, 9), (0, 0)], [(1, 2)]),
        (0, [], []),
    ],
)
def test_what_is_not_committed_is_open(
    count: int, committed: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert open_ranges(count, committed) == expected


def test_shards_are_cut_at_records_and_bytes_and_around_what_is_committed() -> None:
    sizes = [100] * 30
    sizes[12], sizes[13] = 900, 950
    plan = Plan("run", HEAD, plan_rows(sizes))
    shards = shards_of(plan, [(15, 19)], shard_bytes=1000)
    assert [(shard.first, shard.last) for shard in shards] == [
        (0, 9),
        (10, 11),
        (12, 12),
        (13, 13),
        (14, 14),
        (20, 29),
    ]
    assert shards_of(replace(plan, rows=plan.rows.slice(0, 0)), []) == []


def test_halves_cover_their_shard() -> None:
    assert Shard("run", 3, 7).halves() == (Shard("run", 3, 5), Shard("run", 6, 7))
    assert Shard("run", 3, 4).halves() == (Shard("run", 3, 3), Shard("run", 4, 4))
    assert len(Shard("run", 3, 7)) == 5
