"""What all labelled sets of rows have in common: read once, brought into the tokenizer's form, divided."""

# N = sequences, C = covariates

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.label_rows import LabelRows
from lit_seqlm.data.property_source import Dropped, PropertyTable
from lit_seqlm.data.splits import Fractions, check_method, column_split
from lit_seqlm.data.targets import Target


@dataclass
class Forms:
    """What became of each written row.

    Attributes:
        sequences: as the tokenizer reads them; empty where the row cannot be read.
        reasons: why it cannot; empty where it can.
        covariates_NC: float64; 0 where it cannot.
    """

    sequences: list[str]
    reasons: list[str]
    covariates_NC: np.ndarray


class RowSource:
    """Rows with labels, divided, with what cannot be read set apart: a `PropertySource` but for its field.

    Attributes:
        methods: of division.

    Args:
        name: as the user says it.
        kind: ``regression`` or ``classification``.
        targets: columns of the labels.
        split: one of `methods`; ``column``: each row says.
        fractions: of validation and test; null where ``column`` is the only method.
        split_seed: of the draw; the same for every run, so that runs can be compared.
    """

    methods: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        name: str,
        kind: str,
        targets: list[Target],
        split: str,
        fractions: Fractions | None,
        split_seed: int,
    ):
        self.name, self.kind, self.targets = name, kind, targets
        self.split, self.fractions = check_method(split, self.methods), fractions
        self.split_seed = split_seed
        self._rows: LabelRows | None = None
        self._forms: dict[Hashable, Forms] = {}
        self._splits: dict[str, np.ndarray] = {}

    def read(self) -> LabelRows:
        """All rows, with the split of each as a mark where ``split=column``."""
        raise NotImplementedError

    def style(self, tokenizer: Any) -> Hashable:
        """What of a tokenizer decides the form of a row."""
        raise NotImplementedError

    def forms(self, rows: LabelRows, tokenizer: Any) -> Forms:
        """Each row as this tokenizer reads it."""
        raise NotImplementedError

    def divide(self, sequences: list[str]) -> dict[str, np.ndarray]:
        """Places of each split, by any method but ``column``."""
        raise NotImplementedError

    def identities(self, written: list[str], merged: bool) -> list[str]:
        """See `PropertySource`."""
        raise NotImplementedError

    def table(self, split: str, tokenizer: Any) -> PropertyTable:
        """A split in the form that this tokenizer reads."""
        rows, forms = self._ready(tokenizer)
        places = self._splits[split]
        good = [place for place in places if not forms.reasons[place]]
        return PropertyTable(
            sequences=[forms.sequences[place] for place in good],
            written=[rows.sequences[place] for place in good],
            labels_NK=rows.labels_NK[good],
            covariates_NC=forms.covariates_NC[good],
            rows_N=rows.numbers_N[good],
            dropped=[
                Dropped(int(rows.numbers_N[place]), forms.reasons[place])
                for place in places
                if forms.reasons[place]
            ],
        )

    def readable(self) -> Sequence[str]:
        """All sequences of the first form that was asked for."""
        forms = next(iter(self._forms.values()))
        return [sequence for sequence in forms.sequences if sequence]

    def _ready(self, tokenizer: Any) -> tuple[LabelRows, Forms]:
        if self._rows is None:
            self._rows = self.read()
        style = self.style(tokenizer)
        if style not in self._forms:
            self._forms[style] = self.forms(self._rows, tokenizer)
        if not self._splits:
            self._splits = self._divided(self._rows, self._forms[style])
        return self._rows, self._forms[style]

    def _divided(self, rows: LabelRows, forms: Forms) -> dict[str, np.ndarray]:
        """Rows of each split; what cannot be read goes to training, and is reported there."""
        if self.split == "column":
            return column_split(rows.marks, rows.numbers_N, f"data={self.name}")
        good = np.array([not reason for reason in forms.reasons])
        places = np.flatnonzero(good)
        parts = self.divide([forms.sequences[place] for place in places])
        splits = {split: places[parts[split]] for split in SPLITS}
        splits["train"] = np.sort(np.concatenate([splits["train"], np.flatnonzero(~good)]))
        return splits
