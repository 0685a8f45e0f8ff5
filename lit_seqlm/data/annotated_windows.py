"""Chains longer than a model can read, in windows: every residue is scored once, where it has most context."""

# N = proteins, R = rows: windows of all of them

from itertools import pairwise

import numpy as np

from lit_seqlm.data.annotated_table import UNSCORED, AnnotatedTable

SHARED = 4  # neighbouring windows have 1 / SHARED of their residues in common, or more


def windows(length: int, size: int) -> list[tuple[slice, slice]]:
    """Of each window the residues that are read, and those of them that are scored; both in the chain.

    Windows of `size` residues lie evenly from end to end. What two neighbours share is cut in its middle.
    """
    if length <= size:
        return [(slice(0, length), slice(0, length))]
    step = size - size // SHARED
    count = 1 - (-(length - size) // step)
    starts = [round(place * (length - size) / (count - 1)) for place in range(count)]
    inner = [(before + size + after) // 2 for before, after in pairwise(starts)]
    cuts = [0, *inner, length]
    return [
        (slice(start, start + size), slice(first, last))
        for start, (first, last) in zip(starts, pairwise(cuts), strict=True)
    ]


def in_windows(table: AnnotatedTable, size: int) -> tuple[AnnotatedTable, np.ndarray]:
    """A table of residues with no row of more than `size`, and the place of the protein that each row is of."""
    found = AnnotatedTable([], [], labels := [], {name: [] for name in table.scopes}, table.dropped)
    proteins: list[int] = []
    for place, sequence in enumerate(table.sequences):
        for read, scored in windows(len(sequence), size):
            proteins.append(place)
            found.names.append(table.names[place])
            found.numbers.append(table.numbers[place])
            found.sequences.append(sequence[read])
            labels.append(_within(table.labels[place], read, scored, UNSCORED))
            for name, parts in table.scopes.items():
                found.scopes[name].append(_within(parts[place], read, scored, False))
    return found, np.array(proteins, np.int64)


def _within(values: np.ndarray, read: slice, scored: slice, other: int) -> np.ndarray:
    """What is read of the values of a chain; `other` where it is not scored."""
    kept = np.full_like(values, other)
    kept[scored] = values[scored]
    return kept[read]
