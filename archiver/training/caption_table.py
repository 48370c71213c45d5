"""Captions -> the table that `caption_text` codes with.

python -m archiver.training.caption_table CAPTIONS... --out TABLE.safetensors

CAPTIONS have one a line; every tenth line is held out, and what it costs is told.
"""

import argparse
import hashlib
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from archiver.codecs.caption_text import BEGIN, END, Table, encode_caption, table_of

ORDER = 6  # bytes of context
ONCE_UP_TO = 3  # bytes of a string that is kept though it was seen once only
HELD_OUT = 10  # one of so many lines


def split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """For the table, and held out."""
    kept = [line for place, line in enumerate(lines) if place % HELD_OUT != HELD_OUT - 1]
    return kept, list(lines[HELD_OUT - 1 :: HELD_OUT])


def fit_table(captions: Sequence[str], order: int = ORDER) -> dict[str, NDArray[np.generic]]:
    """Arrays for `table_of`: counts of the longest strings, and of those that begin a caption.

    Of all others how many bytes came before them, which says better how likely they are in new company.
    """
    seen = _strings(captions, order + 1)
    kept: list[dict[bytes, int]] = [{b"": 0}]
    for length in range(1, order + 2):
        least = 1 if length <= ONCE_UP_TO else 2
        before = Counter(string[1:] for string in seen[length + 1]) if length <= order else seen[length]
        kept.append(
            {
                string: count if string[0] == BEGIN else before[string]
                for string, count in sorted(seen[length].items())
                if count >= least and string[:-1] in kept[-1] and (length == 1 or string[1:] in kept[-1])
            }
        )
    strings = [string for level in kept[1:] for string in level]
    parents = Counter(string[:-1] for string in strings)
    inner = [string for level in kept[:-1] for string in level]
    counts = [count for level in kept[1:] for count in level.values()]
    return {
        "byte": np.array([string[-1] for string in strings], np.uint8),
        "count": np.minimum(counts, 65_535).astype(np.uint16),
        "children": np.array([parents[string] for string in inner], np.uint8),
        "levels": np.array([len(level) for level in kept[1:]], np.int64),
    }


def _strings(captions: Sequence[str], longest: int) -> list[Counter[bytes]]:
    """How often each string of n bytes occurs, by n; the strings that begin and end captions have BEGIN and END."""
    seen: list[Counter[bytes]] = [Counter() for _ in range(longest + 1)]
    for caption in captions:
        text = bytes([BEGIN]) + caption.encode() + bytes([END])
        for length in range(1, longest + 1):
            seen[length].update(text[first : first + length] for first in range(len(text) - length + 1))
    return seen


def mean_bytes(captions: Sequence[str], table: Table) -> float:
    """Of a caption, coded."""
    return statistics.mean(len(encode_caption(caption, table)) for caption in captions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("captions", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    kept: list[str] = []
    held_out: dict[str, list[str]] = {}
    for file in given.captions:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
        ours, held_out[file.name] = split([line for line in lines if line])
        kept += ours
    arrays = fit_table(kept)
    content = save(arrays)
    given.out.write_bytes(content)
    sys.stdout.write(f"{given.out}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}\n")
    for name, captions in held_out.items():
        bare = statistics.mean(len(caption.encode()) for caption in captions)
        coded = mean_bytes(captions, table_of(arrays))
        sys.stdout.write(f"{name}: {len(captions):,} held out, {bare:.2f} bytes each, coded {coded:.2f}\n")


if __name__ == "__main__":
    main()
