"""Keys -> paths of restored files, below the output and different from each other."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from pipelines.images import Format

SUFFIX: dict[Format, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif"}
_DRIVE = re.compile("[A-Za-z]:")


def short_name(key: str, format: Format) -> str:
    """Example: short_name("a/b.JPG", "png") -> "a/b.png"."""
    return posixpath.splitext(key)[0] + SUFFIX[format]


def long_name(key: str, format: Format) -> str:
    """Example: long_name("a/b.JPG", "png") -> "a/b.JPG.png"; different for different keys."""
    return key + SUFFIX[format]


def why_unusable(key: str) -> str | None:
    """Why no file below the output can have the key's name; None where one can."""
    if "\0" in key:
        return "its name holds a NUL"
    if _DRIVE.match(key):
        return "its name begins with a drive"
    # A backslash separates folders on Windows, and such an output may end up there.
    steps = key.replace("\\", "/").split("/")
    if any(step in ("", ".", "..") for step in steps):
        return "its name is no path below a folder"
    return None


def names_of(keys: Iterable[str], format: Format) -> Mapping[str, str]:
    """Key -> path: the key with a new suffix, or with one more suffix where two keys would share a path.

    None is another key's path with one more suffix, which that key takes where its own path is not free.

    Example: names_of(["a.jpg", "b.jpg", "b.gif"], "png") -> {"a.jpg": "a.png", "b.jpg": "b.jpg.png",
    "b.gif": "b.gif.png"}
    """
    names = {key: short_name(key, format) for key in keys}
    long_names = {long_name(key, format) for key in names}
    while True:
        shared = long_names | {name for name, count in Counter(names.values()).items() if count > 1}
        longer = [key for key, name in names.items() if name in shared and name != long_name(key, format)]
        if not longer:  # long names differ: only short ones can be shared
            return names
        names.update((key, long_name(key, format)) for key in longer)


def alike(names: Iterable[str]) -> list[str]:
    """Paths that differ from another one in upper and lower case only: some file systems take them as one."""
    found = list(names)
    folded = Counter(name.casefold() for name in found)
    return sorted(name for name in found if folded[name.casefold()] > 1)
