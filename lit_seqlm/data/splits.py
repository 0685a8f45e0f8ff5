"""How rows are divided into training, validation and test."""

# N = rows

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.errors import UserError, did_you_mean

METHODS = ("random", "scaffold_balanced", "scaffold_strict", "column")


@dataclass(frozen=True)
class Fractions:
    """What is held out, as shares of all rows."""

    valid: float
    test: float

    def __post_init__(self) -> None:
        if min(self.valid, self.test) <= 0 or self.valid + self.test >= 1:
            raise UserError(
                f"data.source.valid_fraction={self.valid}, test_fraction={self.test}: "
                "both above 0, and below 1 together."
            )

    def sizes(self, total: int) -> tuple[int, int]:
        """Rows of validation and of test, at least one each."""
        return max(1, round(self.valid * total)), max(1, round(self.test * total))


def check_method(method: str, methods: Sequence[str]) -> str:
    if method not in methods:
        raise UserError(f"data.source.split={method}: {did_you_mean(method, methods)}")
    return method


def random_split(total: int, fractions: Fractions, seed: int) -> dict[str, np.ndarray]:
    """A permutation, cut."""
    order = np.random.default_rng(seed).permutation(total)
    num_valid, num_test = fractions.sizes(total)
    return _sorted(np.split(order, [total - num_valid - num_test, total - num_test]))


def distinct_split(
    sequences: Sequence[str], fractions: Fractions, seed: int
) -> dict[str, np.ndarray]:
    """A permutation of the distinct sequences, cut by rows: no sequence is in two splits."""
    rows = _grouped(sequences)
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = [rows[place] for place in order]
    num_valid, num_test = fractions.sizes(len(sequences))
    before_N = np.cumsum([0, *map(len, shuffled)])[:-1]  # rows of the sequences before each
    cuts = np.searchsorted(before_N, [num_test, num_test + num_valid])
    empty = np.empty(0, np.int64)
    parts = (shuffled[cuts[1] :], shuffled[cuts[0] : cuts[1]], shuffled[: cuts[0]])
    return _sorted([np.concatenate([empty, *part]) for part in parts])


def scaffold_balanced(
    groups: Sequence[str], fractions: Fractions, seed: int
) -> dict[str, np.ndarray]:
    """Whole groups to one split each, in a random order: the held-out groups differ by seed.

    Groups of more than half a held-out split go to training first, as in Chemprop's split of this
    name. A molecule without rings is a group of its own: that it has no scaffold is nothing shared.

    Args:
        groups: of each row: its scaffold, or the molecule itself where it has none.
    """
    rows = _grouped(groups)
    num_valid, num_test = fractions.sizes(len(groups))
    order = np.random.default_rng(seed).permutation(len(rows))
    large = [row for row in rows if len(row) > min(num_valid, num_test) / 2]
    small = [rows[place] for place in order if len(rows[place]) <= min(num_valid, num_test) / 2]
    return _fill([*large, *small], num_valid, num_test)


def scaffold_strict(groups: Sequence[str], fractions: Fractions) -> dict[str, np.ndarray]:
    """Whole groups to one split each, the largest to training: the rarest scaffolds are the test.

    No scaffold and no molecule is in two splits, where molecules without rings are one group. It
    depends on the molecules alone. This is what "scaffold split" means in Wu et al. 2018.
    """
    num_valid, num_test = fractions.sizes(len(groups))
    return _fill(sorted(_grouped(groups), key=len, reverse=True), num_valid, num_test)


def column_split(marks: Sequence[str], numbers_N: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Each row says its split: train, valid (or val, validation, dev) or test.

    Args:
        numbers_N: of the rows in their file, for the message.

    Raises:
        UserError: for another word, with its row, and for a split without rows.
    """
    words = {"train": "train", "training": "train", "test": "test"}
    words |= dict.fromkeys(("valid", "val", "validation", "dev"), "valid")
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row, mark in enumerate(marks):
        split = words.get(mark.strip().lower())
        if split is None:
            raise UserError(
                f"{where}, row {numbers_N[row]}: the split is {mark!r}. Accepted: train, valid, test."
            )
        found[split].append(row)
    for split, rows in found.items():
        if not rows:
            raise UserError(f"{where}: no row has the split {split!r}. All three are needed.")
    return {split: np.array(rows, np.int64) for split, rows in found.items()}


def split_hash(splits: dict[str, np.ndarray]) -> str:
    """Of the rows of each split, to be recorded beside every number."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split} {len(splits[split])}\n".encode())
        digest.update(np.asarray(splits[split], "<i8").tobytes())
    return digest.hexdigest()[:16]


def _grouped(groups: Sequence[str]) -> list[np.ndarray]:
    """Rows of each group, in the order in which the groups first occur."""
    found = defaultdict(list)
    for row, group in enumerate(groups):
        found[group].append(row)
    return [np.array(rows, np.int64) for rows in found.values()]


def _fill(groups: list[np.ndarray], num_valid: int, num_test: int) -> dict[str, np.ndarray]:
    """Groups in order to training while they fit, then to validation while they fit, then to test."""
    room = [sum(map(len, groups)) - num_valid - num_test, num_valid]
    parts: list[list[np.ndarray]] = [[], [], []]
    for group in groups:
        place = next((place for place in (0, 1) if len(group) <= room[place]), 2)
        parts[place].append(group)
        if place < 2:
            room[place] -= len(group)
    empty = [split for split, part in zip(SPLITS, parts, strict=True) if not part]
    if empty:
        raise UserError(
            f"data.source.split: no scaffold is left for {' and '.join(empty)}: the molecules "
            "share too few. Choose split=random, or larger fractions."
        )
    return _sorted([np.concatenate(part) for part in parts])


def _sorted(parts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}
