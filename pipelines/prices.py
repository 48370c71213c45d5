"""Price files -> figures that say where they come from."""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SMALL_BYTES = 131_072  # 128 KiB: the only minimum object size that S3 classes have
STEPS_GB = {
    "storage_gb_month": 0,
    "storage_gb_month_over_50_tb": 50 * 1024,
    "storage_gb_month_over_500_tb": 500 * 1024,
}


@dataclass(frozen=True)
class Figure:
    """One number of a price file, how sure it is, and who says so."""

    value: float
    sure: str  # "listed", "secondhand", "assumed", "given"
    source: str


@dataclass(frozen=True)
class StorageClass:
    """What one S3 storage class charges, and how it counts bytes."""

    name: str
    storage_steps: tuple[tuple[int, Figure], ...]  # (from this many GB on, $/GB-month), ascending from 0
    put_1k: Figure
    get_1k: Figure
    retrieval_gb: Figure
    restore_1k: Figure
    min_object_bytes: int
    overhead_bytes: int  # an object, at this class's price
    overhead_standard_bytes: int  # an object, at STANDARD's price
    min_days: int

    @property
    def sleeps(self) -> bool:
        """An object is restored, whole, before it can be read: so where the class adds an index to each."""
        return self.overhead_bytes > 0


@dataclass(frozen=True)
class Prices:
    """All prices of one region on one day."""

    date: str
    region: str
    currency: str
    classes: Mapping[str, StorageClass]
    machines: Mapping[str, Figure]  # $/hour; "cpu" is one core
    egress_gb: Figure
    gets_per_image: Figure
    bytes_per_image: Figure
    sources: Mapping[str, str]


def load_prices(override: Path | None = None) -> Prices:
    """The shipped prices; numbers and names that `override` gives replace the shipped ones."""
    shipped = tomllib.loads(Path(__file__).with_name("prices.toml").read_text("utf-8"))
    sources = _texts(shipped.pop("sources"))
    found = dict(_leaves(shipped))
    labels = {key: str(value) for key, value in found.items() if not isinstance(value, dict)}
    figures = {key: _figure(key, value) for key, value in found.items() if isinstance(value, dict)}
    if override is not None:
        _replace(labels, figures, override)
        sources["given"] = f"given in {override.name}"
    return _prices(labels, figures, sources)


def _leaves(table: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Nested tables -> dotted keys; a table with a `value` is a figure, not nested further."""
    for key, value in table.items():
        if isinstance(value, dict) and "value" not in value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


def _texts(table: object) -> dict[str, str]:
    assert isinstance(table, dict)
    return {str(key): str(value) for key, value in table.items()}


def _figure(key: str, found: object) -> Figure:
    match found:
        case {"value": int() | float() as value, "sure": str() as sure, "source": str() as source}:
            return Figure(float(value), sure, source)
    raise ValueError(f"price {key!r}: {found!r}, expected a value, how sure it is and its source")


def _replace(labels: dict[str, str], figures: dict[str, Figure], override: Path) -> None:
    try:
        given = dict(_leaves(tomllib.loads(override.read_text("utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise ValueError(f"prices {str(override)!r}: not a TOML file: {reason}") from reason
    unknown = sorted(set(given) - set(labels) - set(figures))
    if unknown:
        raise ValueError(f"prices {str(override)!r}: unknown {', '.join(unknown)}; see pipelines/prices.toml")
    for key in [key for key in given if key.endswith(".storage_gb_month")]:
        for step in STEPS_GB:  # a storage price given alone is flat
            figures.pop(f"{key.rpartition('.')[0]}.{step}", None)
    for key, value in given.items():
        if key in labels:
            labels[key] = str(value)
        else:
            figures[key] = Figure(_number(key, value), "given", "given")


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"price {key!r}: {value!r}, expected a number from 0 up")
    return float(value)


def _prices(labels: Mapping[str, str], figures: Mapping[str, Figure], sources: Mapping[str, str]) -> Prices:
    names = dict.fromkeys(key.split(".")[1] for key in figures if key.startswith("classes."))
    return Prices(
        date=labels["date"],
        region=labels["region"],
        currency=labels["currency"],
        classes={name: _storage_class(name, figures) for name in names},
        machines={
            key.removeprefix("machines."): price
            for key, price in figures.items()
            if key.startswith("machines.")
        },
        egress_gb=figures["transfer.egress_gb"],
        gets_per_image=figures["reading.gets_per_image"],
        bytes_per_image=figures["reading.bytes_per_image"],
        sources=sources,
    )


def _storage_class(name: str, figures: Mapping[str, Figure]) -> StorageClass:
    def figure(field: str) -> Figure:
        return figures[f"classes.{name}.{field}"]

    def count(field: str) -> int:
        return int(figure(field).value)

    steps = [(gb, figures.get(f"classes.{name}.{field}")) for field, gb in STEPS_GB.items()]
    if count("min_object_bytes") not in (0, SMALL_BYTES):
        raise ValueError(
            f"price 'classes.{name}.min_object_bytes': {count('min_object_bytes')}, "
            f"expected 0 or {SMALL_BYTES}: objects are counted below and above that size only"
        )
    return StorageClass(
        name=name,
        storage_steps=tuple((gb, price) for gb, price in steps if price is not None),
        put_1k=figure("put_1k"),
        get_1k=figure("get_1k"),
        retrieval_gb=figure("retrieval_gb"),
        restore_1k=figure("restore_1k"),
        min_object_bytes=count("min_object_bytes"),
        overhead_bytes=count("overhead_bytes"),
        overhead_standard_bytes=count("overhead_standard_bytes"),
        min_days=count("min_days"),
    )
