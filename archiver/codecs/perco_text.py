"""Captions -> what the UNet's cross-attention sees.

The embedded presets know words: lower-cased runs of ASCII letters, or single digits, from a list that lies in the
weights file, and a small transformer trained with the UNet. Words that are not in the list are all one. Tokens are a
function of the caption's characters alone: no tokenizer of another package, whose versions differ, is asked.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Legend of suffixes: B batch, n tokens, E channels.

NONE, UNKNOWN, BEGIN = 0, 1, 2  # ids of what is no word
FIRST_WORD = 3
_WORD = re.compile(r"[a-z]+(?:['’][a-z]+)?|[0-9]", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class TextShape:
    """Of the embedded presets' text encoder."""

    words: int  # in the list
    list_bytes: int  # of the list, in UTF-8, one word a line
    tokens: int = 32  # that are read of a caption, the first ones; with the one at the beginning
    channels: int = 128
    layers: int = 2
    heads: int = 4


class WordEncoder(nn.Module):
    """Tokens (B, n) -> (B, n, channels)."""

    list: Tensor  # (list_bytes,) uint8

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(FIRST_WORD + shape.words, shape.channels)
        self.places = nn.Parameter(torch.zeros(shape.tokens, shape.channels))
        layer = nn.TransformerEncoderLayer(
            shape.channels,
            shape.heads,
            2 * shape.channels,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.channels)
        self.register_buffer("list", torch.zeros(shape.list_bytes, dtype=torch.uint8))

    def forward(self, tokens_bn: Tensor) -> Tensor:
        out: Tensor = self.norm(self.layers(self.words(tokens_bn) + self.places))
        return out


@dataclass(frozen=True)
class Words:
    """A list of words, and how many tokens are read of a caption."""

    ids: dict[str, int]
    most: int

    def tokens(self, caption: str) -> list[int]:
        """The beginning, then a token a word; not yet cut or filled."""
        return [BEGIN, *(self.ids.get(_plain(found), UNKNOWN) for found in _WORD.findall(caption))]

    def filled(self, captions: Sequence[str]) -> Tensor:
        """Captions as (B, most); ValueError for one with more tokens."""
        rows = []
        for caption in captions:
            tokens = self.tokens(caption)
            if len(tokens) > self.most:
                raise ValueError(
                    f"a caption of {len(tokens) - 1} words, expected up to {self.most - 1}: {caption[:60]!r}"
                )
            rows.append(tokens + [NONE] * (self.most - len(tokens)))
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), self.most)

    def shortened(self, caption: str) -> str:
        """The caption up to the last word that is read."""
        ends = [found.end() for found in _WORD.finditer(caption)]
        return caption if len(ends) < self.most else caption[: ends[self.most - 2]]


def _plain(word: str) -> str:
    return word.lower().replace("’", "'")


def words_in(caption: str) -> list[str]:
    """All words of a caption, as a list of words tells them."""
    return [_plain(found) for found in _WORD.findall(caption)]


def to_list(words: Sequence[str]) -> Tensor:
    """Words -> the buffer of `WordEncoder`."""
    return torch.frombuffer(bytearray("\n".join(words).encode()), dtype=torch.uint8)


def to_ids(words: Sequence[str], most: int) -> Words:
    """Words in the order of their ids."""
    return Words({word: FIRST_WORD + place for place, word in enumerate(words)}, most)


def words_of(encoder: WordEncoder) -> Words:
    """Inverse of `to_list`, with the encoder's limit; ValueError where the list is not what the shape says."""
    words = encoder.get_buffer("list").cpu().numpy().tobytes().decode().split("\n")
    if len(words) != encoder.shape.words or len(set(words)) != len(words):
        raise ValueError(f"a list of {len(set(words))} words, expected {encoder.shape.words}")
    return to_ids(words, encoder.shape.tokens)
