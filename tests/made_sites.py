"""Made sequences with classes, which follow from their residues: for tests without any data."""

# L = residues of a sequence

from collections.abc import Iterator
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import UNSCORED, AnnotatedTable
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.tokenizer.amino_acid import STANDARD

CLASSES = {"residue": ("H", "E", "C"), "pair": ("apart", "contact"), "chain": tuple("abcd")}
SEEDS = {"train": 1, "valid": 2, "first": 3, "second": 4}
LEAST = 12  # residues


class MadeSites:
    """Some sequences of 12 residues and more for each split.

    Args:
        site: ``residue``, ``pair`` or ``chain``.
        number: of sequences of a split.
        spread: lengths that occur.
    """

    name, measure, tests = "made", "q", ("first", "second")

    def __init__(self, data_dir: str, site: str, number: int, spread: int):
        self.site, self.number, self.spread = site, number, spread
        self.classes = CLASSES[site]
        self.card: dict[str, Any] = {"made": site}

    def digest(self) -> str:
        return f"{self.site}-{self.number}-{self.spread}"

    def fetch(self) -> None:
        """Nothing to get."""

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        rng = np.random.default_rng(SEEDS[split])
        codes = [
            rng.integers(20, size=LEAST + rng.integers(self.spread)) for _ in range(self.number)
        ]
        sequences = ["".join(STANDARD[code] for code in code_L) for code_L in codes]
        scopes = {"all": [np.ones(len(code_L), bool) for code_L in codes],
                  "masked": [code_L < 10 for code_L in codes]}  # fmt: skip
        labels = [self._label(code_L, place) for place, code_L in enumerate(codes)]
        names = [f"{split}_{place}" for place in range(self.number)]
        return AnnotatedTable(names, sequences, labels, scopes if self.site == "residue" else {})

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        """A sequence a line, behind its name."""
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                name, _, sequence = line.rstrip().partition(" ")
                yield InputRow(number, sequence, sequence, "ok", "", name)

    def _label(self, code_L: np.ndarray, place: int) -> Any:
        if self.site == "residue":
            return (code_L % 3).astype(np.int8)
        if self.site == "chain":
            return int(code_L.sum()) % len(self.classes)
        sticky_L = code_L < 8
        return (sticky_L[:, None] & sticky_L[None]).astype(np.int8)


class FarContacts(MadeSites):
    """Pairs of which those nearer than `train_separation` are not learnt, as in the real sources."""

    train_separation = 6

    def __init__(self, data_dir: str, number: int, spread: int):
        super().__init__(data_dir, "pair", number, spread)

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        table = super().table(split, tokenizer)
        if split == "train":
            for map_LL in table.labels:
                near_LL = np.tri(len(map_LL), k=self.train_separation - 1, dtype=bool)
                map_LL[near_LL & near_LL.T] = UNSCORED
        return table


class FoundClasses(MadeSites):
    """Chains whose classes are found in the training data, as folds are; it counts how often these are read."""

    reads = 0

    def __init__(self, data_dir: str, number: int, spread: int):
        self.site, self.number, self.spread = "chain", number, spread

    @property
    def classes(self) -> tuple[str, ...]:
        FoundClasses.reads += 1
        return CLASSES[self.site]

    @property
    def card(self) -> dict[str, Any]:
        return {"made": f"{len(self.classes)} classes"}
