"""Bytes with one flipped bit -> the bytes that their hash names.

Where a whole object hangs on a few bytes (a footer, a spec), one bit is found in a second or so.
"""

import hashlib


def mended(content: bytes, hash_: str, first: int, end: int) -> bytes | None:
    """The content with one bit of bytes first..end turned, so that its sha256 begins with `hash_`.

    None where no bit does it. With 16 hex digits, each bit tried is wrongly taken once in 2^64 times.
    """
    before = hashlib.sha256(content[:first])
    for place in range(first, end):
        after = content[place + 1 :]
        for bit in range(8):
            tried = before.copy()
            turned = bytes([content[place] ^ 1 << bit])
            tried.update(turned)
            tried.update(after)
            if tried.hexdigest().startswith(hash_):
                return content[:place] + turned + after
        before.update(content[place : place + 1])
    return None
