"""What an archive holds and what a byte costs -> the lines that a finance department asks for.

Every line is quantity x unit price = dollars. Storage is billed as its class bills it: minimum sizes and
overheads included.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.prices import SMALL_BYTES, Figure, Prices, StorageClass

GB = 2**30  # bytes, as S3 bills them
NOT_MEASURED = "unknown: not measured"
# Nothing is stored when an archive is read: whoever measures it says so.
NOT_TOLD = "unknown: verify --decode 0.01 measures it, --decode-seconds tells it here"
Section = Literal["keep originals", "encode", "keep archive", "restore"]
Period = Literal["once", "month", "year", "image"]
ONCE = ("specs", "weights", "other")  # kinds of objects of which a larger archive holds no more


@dataclass(frozen=True)
class Objects:
    """Stored objects of one kind; those under 128 KiB also by themselves: some classes bill 128 KiB each."""

    kind: str  # "originals", "parts", "log", "plans", "specs", "weights", "other"
    count: int
    size_bytes: int
    small_count: int = 0
    small_bytes: int = 0

    @staticmethod
    def of(kind: str, sizes: Sequence[int]) -> "Objects":
        """Example: of("log", [557, 200_000]) -> 2 objects of 200,557 bytes, of which 1 small of 557."""
        small = [size for size in sizes if size < SMALL_BYTES]
        return Objects(kind, len(sizes), sum(sizes), len(small), sum(small))

    def billed_bytes(self, storage: StorageClass) -> int:
        """What the class bills at its own price."""
        raised = self.small_count * SMALL_BYTES - self.small_bytes if storage.min_object_bytes else 0
        return self.size_bytes + raised + self.count * storage.overhead_bytes


@dataclass(frozen=True)
class Holdings:
    """What an archive holds, and what was measured while it was made."""

    images: int
    source: Objects  # the originals of all rows, images and failures
    failed: Objects  # the originals of the failures, which must stay
    archive: tuple[Objects, ...]  # by kind
    encode_seconds: Mapping[str, float] | None  # by machine as prices name it; "cpu" counts core seconds
    decode_seconds: float | None  # one image, on the machine that restores
    restored_bytes: float | None  # mean size of a restored file; unknown: as an original


@dataclass(frozen=True)
class CostLine:
    """One line of the bill."""

    section: Section
    what: str
    quantity: float
    unit: str
    unit_price: float  # $
    dollars: float  # quantity x unit price
    period: Period
    note: str
    known: bool = True  # False: the quantity was not measured, and stands as 0
    grows: bool = True  # False: a larger archive pays no more of it


def cost_lines(
    holdings: Holdings,
    prices: Prices,
    restored_per_year: float = 0.01,
    source_class: str = "STANDARD",
    archive_class: str = "STANDARD",
    machine: str = "cpu",
) -> list[CostLine]:
    """The bill: originals kept, images encoded, archive kept, images restored.

    `archive_class` holds the parts; log, plans, specs and weights stay STANDARD: reading starts with them.
    """
    if not 0 <= restored_per_year < math.inf:
        raise ValueError(f"restored per year {restored_per_year!r}, expected a share from 0 up")
    bill = _Bill(
        holdings=holdings,
        prices=prices,
        standard=_storage_class(prices, "STANDARD"),
        source=_storage_class(prices, source_class),
        parts=_storage_class(prices, archive_class),
        machine=machine,
    )
    machine_price(prices, machine)
    share = holdings.images * restored_per_year
    return [
        *bill.keep("keep originals", holdings.source, bill.source),
        *bill.read_originals("keep originals", share, "year"),
        *bill.encode(),
        *bill.keep_archive(),
        *bill.restore(min(1, holdings.images), "image"),
        *bill.restore(share, "year"),
    ]


def _storage_class(prices: Prices, name: str) -> StorageClass:
    if name not in prices.classes:
        raise ValueError(f"storage class {name!r}, expected one of {', '.join(prices.classes)}")
    return prices.classes[name]


def machine_price(prices: Prices, name: str) -> Figure:
    if name not in prices.machines:
        raise ValueError(f"machine {name!r}, expected one of {', '.join(prices.machines)}")
    return prices.machines[name]


def _amount(images: float) -> str:
    """Example: 10000.0 -> "10,000"; 0.2 -> "0.2"; 12.34 -> "12.3"."""
    return f"{images:,.0f}" if images >= 100 else f"{images:.3g}"


def _line(
    section: Section, what: str, quantity: float, unit: str, price: float, period: Period, note: str = ""
) -> CostLine:
    return CostLine(section, what, quantity, unit, price, quantity * price, period, note)


@dataclass(frozen=True)
class _Bill:
    """What all sections of one bill share."""

    holdings: Holdings
    prices: Prices
    standard: StorageClass
    source: StorageClass
    parts: StorageClass
    machine: str

    def keep(self, section: Section, objects: Objects, storage: StorageClass) -> Iterator[CostLine]:
        """A month of some objects: a line for each volume step, and one for overheads billed at STANDARD."""
        billed = objects.billed_bytes(storage)
        what = f"{objects.count:,} {objects.kind}, {storage.name}"
        notes = (
            [f"{billed:,} bytes billed for {objects.size_bytes:,}"] if billed != objects.size_bytes else []
        )
        if storage.min_days:
            notes.append(f"each for at least {storage.min_days} days")
        floors = [gb for gb, _ in storage.storage_steps]
        for (floor, price), ceiling in zip(storage.storage_steps, [*floors[1:], math.inf], strict=True):
            quantity = min(billed / GB, ceiling) - floor
            if quantity > 0 or floor == 0:
                above = f" over {floor:,} GB" if floor else ""
                yield _line(
                    section, what + above, quantity, "GB-month", price.value, "month", "; ".join(notes)
                )
        if storage.overhead_standard_bytes and objects.count:
            overhead = objects.count * storage.overhead_standard_bytes / GB
            price = self.standard.storage_steps[0][1]
            note = f"{storage.overhead_standard_bytes:,} bytes each, at STANDARD's price"
            yield _line(section, f"{what}: names", overhead, "GB-month", price.value, "month", note)

    def requests(
        self, section: Section, what: str, count: float, price: Figure, period: Period, note: str = ""
    ) -> CostLine:
        return _line(section, what, count / 1000, "1k requests", price.value, period, note)

    def take_out(
        self,
        section: Section,
        what: str,
        count: float,
        size_bytes: float,
        storage: StorageClass,
        period: Period,
    ) -> Iterator[CostLine]:
        """What a class charges beyond GETs for reading: restore requests and retrieval."""
        if storage.sleeps:
            yield self.requests(section, f"{what}: restore requests", count, storage.restore_1k, period)
        if storage.retrieval_gb.value:
            price = storage.retrieval_gb.value
            yield _line(section, f"{what}: retrieval", size_bytes / GB, "GB", price, period)

    def read_originals(self, section: Section, images: float, period: Period) -> Iterator[CostLine]:
        """Originals that are asked for while they are kept."""
        what = f"{_amount(images)} originals read"
        size_bytes = images * self.original_bytes
        yield self.requests(section, f"{what}: GET", images, self.source.get_1k, period)
        yield from self.take_out(section, what, images, size_bytes, self.source, period)
        yield _line(section, f"{what}: egress", size_bytes / GB, "GB", self.prices.egress_gb.value, period)

    def encode(self) -> Iterator[CostLine]:
        source, what = self.holdings.source, "read originals"
        yield self.requests("encode", f"{what}: GET", source.count, self.source.get_1k, "once")
        yield from self.take_out("encode", what, source.count, source.size_bytes, self.source, "once")
        if not self.holdings.encode_seconds:
            yield self.unmeasured("encode", "encode", "once", NOT_MEASURED)
        for machine, seconds in sorted((self.holdings.encode_seconds or {}).items()):
            yield self.hours("encode", "encode", seconds, machine, "once")
        for objects in self.holdings.archive:
            price = self.class_of(objects).put_1k
            line = self.requests("encode", f"write {objects.kind}: PUT", objects.count, price, "once")
            yield replace(line, grows=objects.kind not in ONCE)

    def keep_archive(self) -> Iterator[CostLine]:
        for objects in self.holdings.archive:
            for line in self.keep("keep archive", objects, self.class_of(objects)):
                yield replace(line, grows=objects.kind not in ONCE)
        if self.holdings.failed.count:
            yield from self.keep("keep archive", self.holdings.failed, self.source)

    def restore(self, images: float, period: Period) -> Iterator[CostLine]:
        """Images restored one by one, each from a part of its own while there are parts: the cost at most."""
        reading, what = self.prices, f"{_amount(images)} images" if images != 1 else "1 image"
        parts = next(
            (found for found in self.holdings.archive if found.kind == "parts"), Objects("parts", 0, 0)
        )
        touched = min(images, parts.count)
        part_bytes = parts.size_bytes / parts.count if parts.count else 0.0
        size_bytes = images * min(reading.bytes_per_image.value, part_bytes)
        if self.parts.sleeps and parts.count:
            size_bytes = touched * part_bytes
        gets = images * reading.gets_per_image.value
        yield self.requests("restore", f"{what}: GET", gets, self.parts.get_1k, period, "each read alone")
        yield from self.take_out("restore", what, touched, size_bytes, self.parts, period)
        if self.holdings.decode_seconds is None:
            yield self.unmeasured("restore", f"{what}: decode", period, NOT_TOLD)
        else:
            seconds = images * self.holdings.decode_seconds
            yield self.hours("restore", f"{what}: decode", seconds, self.machine, period)
        restored, note = self.holdings.restored_bytes, ""
        if restored is None:
            restored, note = self.original_bytes, "taken to be as large as an original"
        gb = images * restored / GB
        yield _line("restore", f"{what}: egress", gb, "GB", self.prices.egress_gb.value, period, note)

    def hours(self, section: Section, what: str, seconds: float, machine: str, period: Period) -> CostLine:
        price = machine_price(self.prices, machine)
        unit = "core hour" if machine == "cpu" else f"{machine} hour"
        return _line(section, what, seconds / 3600, unit, price.value, period, "measured")

    def unmeasured(self, section: Section, what: str, period: Period, note: str) -> CostLine:
        price = machine_price(self.prices, self.machine).value
        unit = "core hour" if self.machine == "cpu" else f"{self.machine} hour"
        return CostLine(section, what, 0.0, unit, price, 0.0, period, note, known=False)

    def class_of(self, objects: Objects) -> StorageClass:
        return self.parts if objects.kind == "parts" else self.standard

    @property
    def original_bytes(self) -> float:
        """The mean size of an original whose image is in the archive."""
        whole = self.holdings.source.size_bytes - self.holdings.failed.size_bytes
        return whole / self.holdings.images if self.holdings.images else 0.0
