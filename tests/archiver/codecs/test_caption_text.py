"""The caption coder: exact for any text, short for likely ones, the same bytes everywhere."""

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from archiver.codecs.caption_text import (
    MOST_BYTES,
    SYMBOLS,
    Table,
    _Model,
    decode_caption,
    encode_caption,
    load_table,
    table_of,
)
from archiver.single_image import TABLE, caption_table
from archiver.training.caption_table import fit_table, main, split

shipped = cache(caption_table)

TEXTS = [
    "",
    " ",
    "A man riding a wave on top of a surfboard.",
    "a MAN Riding a wAvE",
    "two\nlines\r\n\tand a tab\n",
    "\0\x01\x7f\u0080",
    "Ein Hund läuft über die Straße – “schnell”.",
    "日本の寺院と桜の木。",
    "🐈\u200d⬛ 👩🏽\u200d🚀",
    "\U0010ffff",
    "the " * 40,
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_exactly(text: str) -> None:
    assert decode_caption(encode_caption(text, shipped()), shipped()) == text


def test_random_texts_come_back_exactly() -> None:
    """Letters, and any code point but surrogates."""
    rng = random.Random(1)
    points = [p for p in range(0x3000) if not 0xD800 <= p < 0xE000]
    for _ in range(30):
        some = rng.choice([points, range(97, 123)])
        text = "".join(chr(rng.choice(some)) for _ in range(rng.randrange(30)))
        assert decode_caption(encode_caption(text, shipped()), shipped()) == text


# Written once; a change of any of these is another format.
@pytest.mark.parametrize(
    ("text", "coded"),
    [
        ("", "ffffe0"),
        ("two cats sleeping on a couch", "fdcfc39e"),
        ("A red fire hydrant in front of a brick building.", "679ecea1"),
        ("Zwei Kätzchen", "dd76626733f346af21f0317da393ad"),
    ],
)
def test_the_bytes_are_those_of_version_1(text: str, coded: str) -> None:
    assert encode_caption(text, shipped()).hex() == coded
    assert decode_caption(bytes.fromhex(coded), shipped()) == text


def test_likely_captions_are_short() -> None:
    """Of my own making, in none of the table's sources."""
    captions = [
        "A young woman is standing on the beach with a red umbrella.",
        "Two brown dogs are lying on a bed next to a window.",
        "A blue bus parked in front of a large stone building.",
        "Some people are eating pizza at a wooden table.",
    ]
    coded = sum(len(encode_caption(caption, shipped())) for caption in captions)
    assert coded <= 15 * len(captions)
    assert coded < sum(map(len, captions)) / 4


def test_too_long_a_caption_is_refused() -> None:
    with pytest.raises(ValueError, match="a caption of 1,000,000 bytes, the limit is 10,000"):
        encode_caption("x" * 1_000_000, shipped())
    assert MOST_BYTES == 10_000


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode_caption("\ud800", shipped())


def test_no_two_codes_give_the_same_text() -> None:
    """Other bytes are refused, or are the code of what they give; and none is read for ever."""
    rng = random.Random(2)
    for _ in range(40):
        coded = rng.randbytes(rng.randrange(1, 12))
        try:
            text = decode_caption(coded, shipped())
        except ValueError:
            continue
        assert encode_caption(text, shipped()) == coded
    with pytest.raises(ValueError, match="no caption"):
        decode_caption(encode_caption("a dog", shipped()) + b"\0", shipped())


def test_odds_are_whole_numbers_that_leave_no_symbol_out() -> None:
    model = _Model(shipped())
    for symbol in "A dog ÿ\0".encode():
        ends = model.ends()
        assert ends.dtype == np.int64
        assert len(ends) == SYMBOLS + 1
        assert np.diff(ends).min() >= 1
        assert ends[-1] < 2**23
        model.seen(symbol)


LINES = ["a cat on a mat", "a dog on a mat", "a cat in a hat", "the dog and the cat"]


def fitted(lines: list[str], order: int) -> Table:
    return table_of(fit_table(lines, order))


def test_a_table_holds_what_followed_what() -> None:
    table = fitted(LINES, 3)
    place: int | None = 0
    for symbol in b" ca":
        assert place is not None
        place = table.child(place, symbol)
    assert place is not None
    assert bytes(table.byte[table.children(place)]) == b"t"
    assert table.child(0, ord("z")) is None
    assert table.order == 3


def test_what_a_table_has_seen_becomes_short_and_all_else_stays_possible() -> None:
    table = fitted(LINES * 5, 6)
    known, new = (encode_caption(text, table) for text in ("a cat on a mat", "q7#;Z?!xkW!0p%"))
    assert len(known) <= 2 < 14 < len(new)
    assert decode_caption(new, table) == "q7#;Z?!xkW!0p%"


def test_the_same_lines_give_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "captions.txt"
    source.write_text("\n".join(f"{line} number {n % 7}" for n in range(9) for line in LINES) + "\n\n")
    made = []
    for name in ("one", "two"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["caption_table", str(source), "--out", str(tmp_path / name)])
            main()
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    assert "captions.txt: 3 held out" in capsys.readouterr().out


def test_every_tenth_line_is_held_out() -> None:
    kept, held_out = split([str(n) for n in range(25)])
    assert held_out == ["9", "19"]
    assert len(kept) == 23


def test_another_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"not it")
    with pytest.raises(ValueError, match="expected the file with sha256 b074a693"):
        load_table(tmp_path / "table", TABLE[1])


def test_a_table_whose_parts_do_not_fit_is_refused() -> None:
    arrays = fit_table(LINES, 2)
    with pytest.raises(ValueError, match="do not fit together"):
        table_of({**arrays, "children": arrays["children"][:-1]})
    with pytest.raises(ValueError, match="do not fit together"):
        table_of({**arrays, "count": arrays["count"][:-1]})
