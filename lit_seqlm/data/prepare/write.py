"""Blocks of sequences as a litdata dataset, whose bytes depend on nothing but the sequences."""

# N = sequences, L = tokens of all of them

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lit_seqlm.data.prepare.partitions import NUM_PARTITIONS
from lit_seqlm.data.shards import cache_class

BLOCK = 256  # sequences of one item: some ten kilobytes of molecules, read at once
INDEX = "index.json"


def write_split(
    split: str, source: Path, target: Path, shard_size: int, done: Callable[[int], None]
) -> int:
    """Write one split, in the order of the hashes, and say how many sequences it has.

    An item is a block of `BLOCK` sequences, the last one shorter: their lengths and their ids, both
    uint16. A file holds `shard_size` of them, rounded down to whole blocks. Nothing is written
    for a split without sequences.

    Args:
        source: the partitions' ids and lengths.
        done: is told how many sequences more were written.
    """
    if not any(_path(source, part, split, "ids").exists() for part in range(NUM_PARTITIONS)):
        return 0
    shards = cache_class()(str(target), chunk_size=max(1, shard_size // BLOCK))
    num_sequences = 0
    for index, (lengths_N, ids_L) in enumerate(_blocks(split, source)):
        shards[index] = [lengths_N, ids_L]
        num_sequences += len(lengths_N)
        done(len(lengths_N))
    shards.done()
    shards.merge()
    _without_time(target / INDEX)
    return num_sequences


def _blocks(split: str, source: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rest_N, rest_L = np.empty(0, np.uint16), np.empty(0, np.uint16)
    for partition in range(NUM_PARTITIONS):
        if not _path(source, partition, split, "ids").exists():
            continue
        lengths_N = np.fromfile(_path(source, partition, split, "lengths"), np.uint16)
        ids_L = np.fromfile(_path(source, partition, split, "ids"), np.uint16)
        lengths_N, ids_L = np.concatenate([rest_N, lengths_N]), np.concatenate([rest_L, ids_L])
        ends_N = np.concatenate([[0], np.cumsum(lengths_N, dtype=np.int64)])
        whole = len(lengths_N) // BLOCK * BLOCK
        for first in range(0, whole, BLOCK):
            last = first + BLOCK
            yield lengths_N[first:last], ids_L[ends_N[first] : ends_N[last]]
        rest_N, rest_L = lengths_N[whole:], ids_L[ends_N[whole] :]
    if len(rest_N):
        yield rest_N, rest_L


def _path(source: Path, partition: int, split: str, what: str) -> Path:
    return source / f"{partition:03d}.{split}.{what}"


def _without_time(index: Path) -> None:
    """The index says when it was written; two runs must give the same bytes."""
    content = json.loads(index.read_text(encoding="utf-8"))
    content.pop("updated_at", None)
    index.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
