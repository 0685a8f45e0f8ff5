"""Signs of a file counted without holding it."""

import gzip
from functools import partial

PIECE = 2**22  # bytes read at once


def count_bytes(path: str, sign: bytes) -> int:
    """How often a sign occurs in a file, unpacked where its name ends in ``.gz``; no overlaps."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    count, rest = 0, b""
    with opener(path, "rb") as file:
        for piece in iter(partial(file.read, PIECE), b""):
            count += (rest + piece).count(sign)
            rest = (rest + piece)[-(len(sign) - 1) :] if len(sign) > 1 else b""
    return count
