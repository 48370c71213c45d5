"""Bills worked out by hand. GB is 2^30 bytes throughout."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.costs import (
    GB,
    NOT_MEASURED,
    NOT_TOLD,
    CostLine,
    Holdings,
    Objects,
    Period,
    Section,
    cost_lines,
)
from pipelines.prices import load_prices
from pipelines.verdict import dollars_text, verdict

NOTHING = Objects("failures", 0, 0)
# 1,000 images of 100 MiB: 97.65625 GB of originals; one part of 1 MiB.
LARGE = Holdings(
    images=1000,
    source=Objects("originals", 1000, 1000 * 100 * 2**20),
    failed=NOTHING,
    archive=(Objects("parts", 1, 2**20),),
    encode_seconds={"cpu": 36_000.0},
    decode_seconds=3.6,
    restored_bytes=2**20,
)


def _dollars(lines: list[CostLine], section: Section, period: Period) -> float:
    return math.fsum(line.dollars for line in lines if (line.section, line.period) == (section, period))


def _only(lines: list[CostLine], section: Section, start: str) -> CostLine:
    found = [line for line in lines if line.section == section and line.what.startswith(start)]
    assert len(found) == 1, [line.what for line in found]
    return found[0]


def _overriding(folder: Path, text: str) -> Path:
    path = folder / "my-prices.toml"
    path.write_text(text)
    return path


def test_a_bill_worked_out_by_hand() -> None:
    """Per month: originals 97.65625 GB x 0.023 = 2.24609375 $, part 1/1024 GB x 0.023 = 0.0000224609375 $.

    Encode: 1,000 GETs 0.0004 $ + 10 core hours x 0.05132 = 0.5132 $ + 1 PUT 0.000005 $.
    1 % a year are 10 images. Originals: 10 GETs 0.000004 $ + 1000/1024 GB x 0.09 = 0.087890625 $ egress.
    Archive: 30 GETs 0.000012 $ + 36 s = 0.01 h x 0.05132 = 0.0005132 $ + 10/1024 GB x 0.09 = 0.00087890625 $.
    """
    lines = cost_lines(LARGE, load_prices())
    assert _dollars(lines, "keep originals", "month") == pytest.approx(2.24609375)
    assert _dollars(lines, "keep originals", "year") == pytest.approx(0.000004 + 0.087890625)
    assert _dollars(lines, "encode", "once") == pytest.approx(0.0004 + 0.5132 + 0.000005)
    assert _dollars(lines, "keep archive", "month") == pytest.approx(0.0000224609375)
    assert _dollars(lines, "restore", "year") == pytest.approx(0.000016 + 0.0005132 + 0.00087890625)
    assert _dollars(lines, "restore", "image") == pytest.approx((0.000016 + 0.0005132 + 0.00087890625) / 10)


def test_every_line_is_quantity_times_unit_price() -> None:
    for archive_class in load_prices().classes:
        for line in cost_lines(LARGE, load_prices(), archive_class=archive_class, source_class="GLACIER"):
            assert line.dollars == line.quantity * line.unit_price
            assert line.unit
            assert line.dollars > 0


def test_small_objects_are_billed_at_the_class_minimum() -> None:
    """3 originals of 100,000 B and 1 of 1,000,000 B in STANDARD_IA: 3 x 131,072 + 1,000,000 = 1,393,216 B."""
    originals = Objects.of("originals", [100_000, 100_000, 100_000, 1_000_000])
    holdings = replace(LARGE, images=4, source=originals)
    line = _only(
        cost_lines(holdings, load_prices(), source_class="STANDARD_IA"), "keep originals", "4 originals,"
    )
    assert line.quantity == 1_393_216 / GB
    assert "1,393,216 bytes billed for 1,300,000" in line.note
    standard = _only(cost_lines(holdings, load_prices()), "keep originals", "4 originals,")
    assert (standard.quantity, standard.note) == (1_300_000 / GB, "")


def test_deep_archive_adds_an_index_to_every_object() -> None:
    """1,000 objects add 1,000 x 32 KiB at 0.00099 and 1,000 x 8 KiB at STANDARD's 0.023 $/GB-month."""
    lines = cost_lines(LARGE, load_prices(), source_class="DEEP_ARCHIVE")
    kept = [line for line in lines if line.section == "keep originals" and line.period == "month"]
    assert [line.quantity for line in kept] == [
        pytest.approx(97.65625 + 1000 * 32_768 / GB),
        pytest.approx(1000 * 8192 / GB),
    ]
    assert [line.unit_price for line in kept] == [0.00099, 0.023]


def test_sleeping_parts_are_restored_whole_and_only_once() -> None:
    """10 images a year from one part: 1 restore request, and its 1 MiB retrieved; 40 GETs."""
    lines = cost_lines(LARGE, load_prices(), archive_class="DEEP_ARCHIVE")
    assert _only(lines, "restore", "10 images: restore requests").quantity == 0.001
    assert _only(lines, "restore", "10 images: retrieval").quantity == 1 / 1024
    assert _only(lines, "restore", "10 images: GET").quantity == 0.04


def test_images_that_are_each_read_alone_are_each_retrieved() -> None:
    """10 images from one part of 1 MiB: ten times 400,000 bytes; from one of 1,000 bytes, ten times that."""
    lines = cost_lines(LARGE, load_prices(), archive_class="GLACIER_IR")
    assert _only(lines, "restore", "10 images: retrieval").quantity == pytest.approx(10 * 400_000 / 2**30)
    tiny = replace(LARGE, archive=(Objects.of("parts", [1000]),))
    lines = cost_lines(tiny, load_prices(), archive_class="GLACIER_IR")
    assert _only(lines, "restore", "10 images: retrieval").quantity == pytest.approx(10 * 1000 / 2**30)


def test_only_parts_leave_the_standard_class() -> None:
    holdings = replace(LARGE, archive=(*LARGE.archive, Objects.of("log", [557])))
    lines = cost_lines(holdings, load_prices(), archive_class="DEEP_ARCHIVE")
    assert _only(lines, "keep archive", "1 log, STANDARD").quantity == 557 / GB
    assert _only(lines, "encode", "write log").unit_price == 0.005
    assert _only(lines, "encode", "write parts").unit_price == 0.05


def test_volume_steps_are_lines_of_their_own() -> None:
    """60 TB: 51,200 GB at 0.023, 10,240 GB at 0.022."""
    holdings = replace(LARGE, source=Objects("originals", 1000, 60 * 1024 * GB))
    lines = [line for line in cost_lines(holdings, load_prices()) if "originals, STANDARD" in line.what]
    assert [(line.quantity, line.unit_price) for line in lines] == [(51_200, 0.023), (10_240, 0.022)]


def test_originals_of_failures_stay_where_they_are() -> None:
    failed = Objects("originals that failed", 2, 2 * GB)
    holdings = replace(LARGE, images=998, failed=failed)
    line = _only(cost_lines(holdings, load_prices()), "keep archive", "2 originals that failed")
    assert line.dollars == pytest.approx(0.046)


def test_originals_that_cost_more_than_encoding_pay_back() -> None:
    """Once 0.513605; saved a month 2.24609375 + 0.087894625/12 - 0.0000224609375 - 0.00140810625/12: month 1.

    Ten times the encoding, a hundredth of the originals: 5.132405 / (0.022535 - 0.000139) is 229.2 months.
    """
    prices = load_prices()
    judged = verdict(cost_lines(LARGE, prices), LARGE)
    assert judged.break_even_month == 1
    assert judged.sentence.startswith("Pays back in month 1: $0.514 once, $2.25 saved a month.")
    assert judged.originals_dollars == pytest.approx(60 * 2.24609375 + 5 * 0.087894625)
    assert judged.archive_dollars == pytest.approx(0.513605 + 60 * 0.0000224609375 + 5 * 0.00140810625)
    assert judged.encode_once.per_image == pytest.approx(0.000513605)
    assert judged.encode_once.per_source_byte == pytest.approx(0.513605 / (1000 * 100 * 2**20))

    small = replace(LARGE, source=Objects("originals", 1000, 1000 * 2**20), encode_seconds={"cpu": 360_000.0})
    assert verdict(cost_lines(small, prices), small).break_even_month is None
    never = verdict(cost_lines(small, prices), small, years=5)
    assert never.sentence.startswith("Does not pay back within 5 years: $5.13 once")
    later = verdict(cost_lines(small, prices), small, years=30)
    assert later.break_even_month == 230


def test_break_even_is_the_first_month_at_whose_end_the_archive_has_cost_no_more() -> None:
    once = CostLine("encode", "encode", 1, "core hour", 6.0, 6.0, "once", "")
    keep = CostLine("keep originals", "originals", 1, "GB-month", 0.5, 0.5, "month", "")
    assert verdict([once, keep], LARGE, years=1).break_even_month == 12
    assert verdict([replace(once, dollars=6.01), keep], LARGE, years=1).break_even_month is None
    assert verdict([replace(once, dollars=5.51), keep], LARGE, years=1).break_even_month == 12


def _some(images: int, original: int, weights: int = 9_000_000) -> Holdings:
    """Each of so many bytes, in 300 bytes and 0.1 s; and decoder weights."""
    return replace(
        LARGE,
        images=images,
        source=Objects.of("originals", [original] * images),
        archive=(Objects("parts", 1, 300 * images), Objects.of("weights", [weights])),
        encode_seconds={"cpu": 0.1 * images},
    )


@pytest.mark.parametrize("years", [5, 1.07])
def test_an_archive_that_weighs_more_than_its_originals_pays_with_more_of_them(years: float) -> None:
    """Two demo pictures of 300 kB against 9 MB of decoder weights, which more pictures would share."""
    prices, few = load_prices(), _some(2, 300_000)
    judged = verdict(cost_lines(few, prices), few, years)
    enough = judged.break_even_images
    assert judged.break_even_month is None
    assert enough is not None
    assert judged.sentence.startswith(f"Does not pay back within {years} years: ")
    assert f"With {enough:,} images like these it would" in judged.sentence
    # The part's own PUT is taken to grow with the images: the true number is a little smaller.
    fewer, as_many = (_some(round(share * enough), 300_000) for share in (0.9, 1.0))
    assert verdict(cost_lines(fewer, prices), fewer, years).break_even_month is None
    paid = verdict(cost_lines(as_many, prices), as_many, years)
    assert paid.break_even_month is not None
    assert paid.break_even_images is None


def test_originals_smaller_than_their_bitstreams_never_pay() -> None:
    tiny = _some(2, 200)
    judged = verdict(cost_lines(tiny, load_prices()), tiny)
    assert (judged.break_even_month, judged.break_even_images) == (None, None)
    assert judged.sentence.startswith("Does not pay back within 5 years, or ever:")


def test_weights_do_not_grow_with_the_images() -> None:
    prices, some = load_prices(), _some(1000, 300_000)
    kept = verdict(cost_lines(some, prices), some).keep_archive_month
    weights = 9_000_000 / 2**30 * 0.023
    assert kept.fixed == pytest.approx(weights)
    assert kept.dollars == pytest.approx(weights + 300_000 / 2**30 * 0.023)
    assert kept.of_images(1e6) == pytest.approx(weights + 300_000_000 / 2**30 * 0.023)
    assert kept.of_source_bytes(3e8) == pytest.approx(kept.dollars)


def test_unknown_seconds_are_named_not_guessed() -> None:
    holdings = replace(LARGE, encode_seconds=None, decode_seconds=None)
    lines = cost_lines(holdings, load_prices())
    unknown = [line for line in lines if not line.known]
    assert {(line.section, line.note) for line in unknown} == {
        ("encode", NOT_MEASURED),
        ("restore", NOT_TOLD),
    }
    assert {line.dollars for line in unknown} == {0.0}
    judged = verdict(lines, holdings)
    assert judged.left_out == ("seconds of encoding", "seconds of decoding")
    assert judged.sentence.startswith(
        "Leaves out what was not measured (seconds of encoding, seconds of decoding)"
    )


def test_an_empty_archive_has_a_bill() -> None:
    holdings = Holdings(0, Objects("originals", 0, 0), NOTHING, (), None, None, None)
    judged = verdict(cost_lines(holdings, load_prices()), holdings)
    assert judged.sentence.startswith("Leaves out what was not measured")
    assert "No images: nothing to compare." in judged.sentence
    assert (judged.originals_dollars, judged.encode_once.per_image, judged.break_even_month) == (0, 0, None)


def test_given_prices_replace_single_values(tmp_path: Path) -> None:
    text = 'region = "here"\n[machines]\ncpu = 0.02\n[classes.STANDARD]\nstorage_gb_month = 0.01\n'
    prices = load_prices(_overriding(tmp_path, text))
    assert (prices.region, prices.machines["cpu"].value, prices.machines["cpu"].sure) == (
        "here",
        0.02,
        "given",
    )
    assert prices.machines["L4"] == load_prices().machines["L4"]
    # Given alone a storage price is flat: the shipped steps would undercut or exceed it.
    assert [(gb, price.value) for gb, price in prices.classes["STANDARD"].storage_steps] == [(0, 0.01)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[machines]\nccpu = 1.0\n", "unknown machines.ccpu"),
        (
            "[classes.STANDARD]\nput = 1\n[classes.COLD]\nget_1k = 1\n",
            "unknown classes.COLD.get_1k, classes.STANDARD.put",
        ),
        ("[machines]\ncpu = -1\n", "'machines.cpu': -1"),
        ("[machines]\ncpu = true\n", "'machines.cpu': True"),
        ("[machines]\ncpu = nan\n", "'machines.cpu': nan"),
        ("[classes.STANDARD_IA]\nmin_object_bytes = 4096\n", "min_object_bytes': 4096"),
        ("cpu: 1", "not a TOML file"),
    ],
)
def test_a_price_file_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"price") as refused:
        load_prices(_overriding(tmp_path, text))
    assert named in str(refused.value)


def test_unknown_classes_and_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="'COLD', expected one of STANDARD, "):
        cost_lines(LARGE, load_prices(), archive_class="COLD")
    with pytest.raises(ValueError, match="'abacus', expected one of cpu, "):
        cost_lines(LARGE, load_prices(), machine="abacus")


def test_every_shipped_figure_says_where_it_comes_from() -> None:
    prices = load_prices()
    figures = [*prices.machines.values(), prices.egress_gb, prices.gets_per_image, prices.bytes_per_image]
    for storage in prices.classes.values():
        figures += [price for _, price in storage.storage_steps]
        figures += [storage.put_1k, storage.get_1k, storage.retrieval_gb, storage.restore_1k]
    assert {figure.sure for figure in figures} == {"listed", "secondhand", "assumed"}
    assert {figure.source for figure in figures} <= set(prices.sources)


def test_dollars_keep_three_digits_that_count() -> None:
    texts = [dollars_text(dollars) for dollars in (0, 1234.5, 0.00001234, 0.5, -2, 0.9999)]
    assert texts == ["$0.00", "$1,234.50", "$0.0000123", "$0.500", "-$2.00", "$1.00"]


def test_a_bill_needs_no_heavy_module() -> None:
    code = (
        "import sys, pipelines.verdict\n"
        "assert not {'numpy', 'pyarrow', 'ray', 'torch', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
