"""A condition -> the rows of an archive that meet it, payloads apart."""

import re
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from manifests.archive import Archive
from manifests.part import Damaged
from manifests.query import TABLE, query
from manifests.recent import Recent
from manifests.storage import S3, Location

ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),
        ("source_bytes", pa.int64()),
        ("mtime", pa.int64()),  # seconds since 1970, UTC
        ("bitstream_bytes", pa.int32()),
        ("bpp", pa.float64()),
        ("codec", pa.string()),
        ("spec", pa.string()),
        ("run", pa.string()),
        ("notes", pa.string()),
    ]
)
FAILURES = pa.schema(
    [
        ("key", pa.string()),
        ("source_bytes", pa.int64()),
        ("mtime", pa.int64()),
        ("codec", pa.string()),
        ("spec", pa.string()),
        ("run", pa.string()),
        ("notes", pa.string()),
        ("failure", pa.string()),
    ]
)
_LITERAL = re.compile("'((?:[^']|'')*)'")
_ONE, _SOME = "'(?:[^']|'')*'", "'(?:[^']|'')*'(?:\\s*,\\s*'(?:[^']|'')*')*"
_NAMES_KEYS = re.compile(
    rf"\s*key\s*(?:=\s*(?P<one>{_ONE})|in\s*\(\s*(?P<some>{_SOME})\s*\))\s*", re.IGNORECASE
)
_KEYS_IN_SQL = 500  # more keys are compared by us: parsing a long list takes longer than a scan


def open_archive(location: Location) -> Archive:
    """ValueError where there is none, or where its log cannot be read."""
    return remembering(Archive(location))


def remembering(archive: Archive) -> Archive:
    """The same; on S3, what was read of it lately is not asked for again."""
    if archive.location.scheme == S3:
        archive.store = Recent(archive.store)
    return archive


def refuse(damaged: Damaged) -> None:
    """What `select` does with damage when nobody listens: it gives no incomplete answer."""
    raise ValueError(f"{damaged.key}: {damaged.what}, damaged or lost: run `archiver verify`")


def select(
    archive: Archive,
    where: str | None = None,
    limit: int | None = None,
    keys: Sequence[str] | None = None,
    tell: Callable[[Damaged], None] = refuse,
) -> pa.Table:
    """The images that meet an SQL condition, of some keys or all, in ascending order of the keys: ROWS.

    The condition may use the names of ROWS, and subqueries the views `images` and `failures`. `tell` hears of
    each record that is damaged so that it cannot be queried. ValueError for a condition that is none.

    Example: select(archive, "caption LIKE '%dog%' AND width >= 4000", limit=10)
    """
    return _rows(archive, "images", ROWS, where, limit, keys, tell)


def failures(
    archive: Archive,
    where: str | None = None,
    limit: int | None = None,
    keys: Sequence[str] | None = None,
    tell: Callable[[Damaged], None] = refuse,
) -> pa.Table:
    """The keys without an image that meet an SQL condition: FAILURES. As `select` otherwise."""
    return _rows(archive, "failures", FAILURES, where, limit, keys, tell)


def keys_named(where: str) -> list[str] | None:
    """The keys of a condition that does nothing but name them; None for any other.

    Example: keys_named("key IN ('a', 'it''s')") -> ["a", "it's"]
    """
    found = _NAMES_KEYS.fullmatch(where)
    if found is None:
        return None
    return [literal.replace("''", "'") for literal in _LITERAL.findall(found["one"] or found["some"])]


def _rows(
    archive: Archive,
    view: str,
    schema: pa.Schema,
    where: str | None,
    limit: int | None,
    keys: Sequence[str] | None,
    tell: Callable[[Damaged], None],
) -> pa.Table:
    if limit is not None and limit < 0:
        raise ValueError(f"limit {limit}, expected 0 or more")
    named = keys_named(where) if keys is None and where else None
    keys = named if named is not None else keys
    conditions = (
        [f"(\n{where}\n)"] if where and where.strip() and named is None else []
    )  # lines of its own: it may end in a comment
    in_sql = keys is not None and len(keys) <= _KEYS_IN_SQL
    if keys is not None and in_sql:
        conditions.append(f"key IN ({', '.join(map(_literal, keys))})" if keys else "false")
    sql = (
        f"WITH {_views(archive)} SELECT {', '.join(schema.names)} FROM {view}"
        + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        + " ORDER BY key"
        + (f" LIMIT {limit}" if limit is not None and (keys is None or in_sql) else "")
    )
    # A condition may hold subqueries, which see all rows.
    alone = frozenset(keys) if keys is not None and in_sql and len(conditions) == 1 else None
    try:
        rows = query(archive, sql, tell, alone).cast(schema)
    except ValueError as error:
        raise ValueError(f"condition {where!r}: {error}") from error
    if keys is not None and not in_sql:
        rows = rows.filter(pc.is_in(rows["key"], value_set=pa.array(keys, pa.string())))
        rows = rows if limit is None else rows.slice(0, limit)
    return rows


def _views(archive: Archive) -> str:
    """`images` and `failures`, each key in one of them."""
    names = {}
    for spec_id in archive.spec_ids():
        try:
            names[spec_id] = archive.spec(spec_id).name
        except ValueError:
            continue  # a damaged spec: the codecs of its rows are null
    cases = "".join(f" WHEN {_literal(spec)} THEN {_literal(name)}" for spec, name in sorted(names.items()))
    codec = f"CASE spec{cases} END" if cases else "CAST(NULL AS VARCHAR)"
    bpp = "bitstream_bytes * 8.0 / (CAST(width AS DOUBLE) * height)"
    common = f"key, source_bytes, mtime, {codec} AS codec, spec, run, notes"
    return (
        f"images AS (SELECT {common}, caption, width, height, bitstream_bytes, {bpp} AS bpp "
        f"FROM {TABLE} WHERE failure IS NULL), "
        f"failures AS (SELECT {common}, failure FROM {TABLE} WHERE failure IS NOT NULL)"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
