"""Sequences on disk, spread by their hash: equal ones lie in one partition, and its order is random.

A sequence's hash is BLAKE2b of its canonical form, 128 bits. The first 64 choose the partition and
the place in it, so that sorting each partition shuffles the whole corpus, the same for every order of
the input. The other 64 choose between training and what is held out, so that no sequence ever changes
sides, unless clusters or a list say what is held out.
"""

# N = sequences

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NUM_PARTITIONS = 256
KEY = np.dtype(
    [("hash", "<u8"), ("side", "<u8"), ("group", "<u8"), ("order", "<u8"), ("size", "<u4")]
)
MEMORY = 2**26  # bytes kept before they are written


def keys_of(texts: Sequence[str], orders: Sequence[int]) -> np.ndarray:
    """One `KEY` a sequence: hash, side, group (of what is held out together), place in the input, bytes.

    The group is the side until something else says what is held out.
    """
    keys_N = np.empty(len(texts), dtype=KEY)
    for row, one in enumerate(texts):
        text = one.encode()
        hashed, side = struct.unpack("<QQ", hashlib.blake2b(text, digest_size=16).digest())
        keys_N[row] = (hashed, side, side, orders[row], len(text))
    return keys_N


def partition_of(keys_N: np.ndarray) -> np.ndarray:
    """The first byte of the hash: partitions one after the other are in its order."""
    return (keys_N["hash"] >> np.uint64(56)).astype(np.int64)


class PartitionWriter:
    """Appends to the partitions' files; opens one at a time, whatever their number.

    Args:
        folder: for the files of each partition, ``000.keys``, ``000.text`` and, for rows that have names,
            ``000.names``.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self._places = [place(folder, partition) for partition in range(NUM_PARTITIONS)]
        self._pending: dict[Path, bytearray] = {}
        self._size = 0

    def add(
        self, keys_N: np.ndarray, texts: Sequence[str], names: Sequence[str] | None = None
    ) -> None:
        """Sequences in the order of the input."""
        partitions_N = partition_of(keys_N)
        order_N = np.argsort(partitions_N, kind="stable")
        begins = np.flatnonzero(np.diff(partitions_N[order_N], prepend=-1))
        for rows in np.split(order_N, begins[1:]) if len(begins) else []:
            keys, text, called = self._places[int(partitions_N[rows[0]])]
            self._append(keys, keys_N[rows].tobytes())
            self._append(text, "".join([texts[row] for row in rows]).encode())
            if names is not None:
                self._append(called, "".join([f"{names[row]}\n" for row in rows]).encode())
        if self._size > MEMORY:
            self.flush()

    def flush(self) -> None:
        for path, content in self._pending.items():
            with path.open("ab") as file:
                file.write(content)
        self._pending, self._size = {}, 0

    def _append(self, path: Path, content: bytes) -> None:
        self._pending.setdefault(path, bytearray()).extend(content)
        self._size += len(content)


def place(folder: Path, partition: int) -> tuple[Path, Path, Path]:
    """Its keys, its strings and its names."""
    keys, text, names = (folder / f"{partition:03d}.{what}" for what in ("keys", "text", "names"))
    return keys, text, names


def read_partition(folder: Path, partition: int) -> tuple[np.ndarray, list[str]]:
    """Keys and strings of one partition, in the order in which they were written."""
    keys, text, _ = place(folder, partition)
    if not keys.exists():
        return np.empty(0, dtype=KEY), []
    keys_N = np.fromfile(keys, dtype=KEY)
    content = text.read_bytes().decode("ascii")
    ends = np.cumsum(keys_N["size"], dtype=np.int64).tolist()
    return keys_N, [
        content[end - size : end] for end, size in zip(ends, keys_N["size"].tolist(), strict=True)
    ]


def read_names(folder: Path, partition: int) -> list[str]:
    """Names of one partition, in the same order; none where rows have no names."""
    _, _, names = place(folder, partition)
    return names.read_bytes().decode().split("\n")[:-1] if names.exists() else []


def write_partition(folder: Path, partition: int, keys_N: np.ndarray, texts: Sequence[str]) -> None:
    if not len(keys_N):
        return
    keys, text, _ = place(folder, partition)
    keys.write_bytes(keys_N.tobytes())
    text.write_text("".join(texts), encoding="ascii")
