"""The tokenizer of a published text encoder, checked -> the tensor that stands for it in a weights file."""

from pathlib import Path

from torch import Tensor

from archiver.codecs.published import read_json
from archiver.codecs.stable_diffusion import tokenizer_tensor


def read_tokenizer(folder: Path, count: int) -> Tensor:
    """From vocab.json and merges.txt, or from tokenizer.json; ValueError where it has other than `count` tokens."""
    if (folder / "vocab.json").is_file():
        vocab: object = read_json(folder / "vocab.json")
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    else:
        model = read_json(folder / "tokenizer.json").get("model")
        if not isinstance(model, dict):
            raise ValueError(f"{folder}/tokenizer.json has no model")
        vocab = model.get("vocab")
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", [])]
    if not isinstance(vocab, dict) or sorted(vocab.values()) != list(range(count)):
        raise ValueError(f"{folder}: expected tokens 0 … {count - 1}, as many as the text encoder knows")
    pad = _padding(folder)
    for token in (pad, "<|startoftext|>", "<|endoftext|>"):
        if token not in vocab:
            raise ValueError(f"{folder}: no token {token!r}")
    wrong = [merge for merge in merges if len(merge) != 2 or "".join(merge) not in vocab]
    if wrong:
        raise ValueError(f"{folder}: a merge {' '.join(wrong[0])!r} to what is no token")
    return tokenizer_tensor(
        sorted(vocab, key=vocab.__getitem__), [(left, right) for left, right in merges], pad
    )


def _padding(folder: Path) -> str:
    """What fills captions up: Stable Diffusion 2 has "!", number 0, where 1 had the end's token."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name).get("pad_token")
            token = found.get("content") if isinstance(found, dict) else found
            if isinstance(token, str):
                return token
    raise ValueError(f"{folder}: neither special_tokens_map.json nor tokenizer_config.json names a pad_token")
