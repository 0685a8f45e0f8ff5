"""Sequences whose residues, pairs of residues or whole chains have classes."""

# N = sequences, P = proteins, L = residues of one, B = sequences of a batch, T = tokens

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_source import Dropped, kept_and_dropped
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

SITES = ("residue", "pair", "chain")
UNSCORED = -1
OUTSIDE = -2  # the class of a chain is none of those learnt: whatever is said of it is wrong
BEGIN = 1  # tokens before the first residue


@dataclass
class AnnotatedTable:
    """One split.

    Attributes:
        names: of the sequences, as the file calls them.
        sequences: in the form that the tokenizer reads.
        labels: of each sequence its classes: int8 (L,) of residues, int8 (L, L) of pairs, one number of a chain; -1
            where there is nothing to score. A sequence of maps may make each when it is asked for.
        scopes: named parts of the residues that a number may be restricted to, bool (L,) for each sequence.
        dropped: what is not among them, and why.
        numbers: of each its row in the file, from 1; from 1 on where they are not given.
    """

    names: list[str]
    sequences: list[str]
    labels: Sequence[Any]
    scopes: dict[str, list[np.ndarray]] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = self.numbers or list(range(1, len(self) + 1))

    def __len__(self) -> int:
        return len(self.sequences)

    def check(self, num_classes: int, where: str) -> None:
        """Raise UserError where a residue or a chain has a class that there is not; only a chain's may be `OUTSIDE`."""
        for name, label in zip(self.names, self.labels, strict=True):
            values, is_chain = np.atleast_1d(label), np.ndim(label) == 0
            wrong = (values < (OUTSIDE if is_chain else UNSCORED)) | (values >= num_classes)
            if wrong.any():
                place = int(np.argmax(wrong))
                at = "" if is_chain else f" at position {place + 1}"
                raise UserError(
                    f"{where}, {name}: class {values[place]}{at}; accepted are 0 to {num_classes - 1}, and {UNSCORED} "
                    "where there is no label."
                )

    def select(
        self, places: Sequence[int] | np.ndarray, dropped: Sequence[Dropped] = ()
    ) -> "AnnotatedTable":
        """Some of its rows, in the order given, and those more that were dropped."""
        return AnnotatedTable(
            [self.names[place] for place in places],
            [self.sequences[place] for place in places],
            Picked(self.labels, places),
            {name: [parts[place] for place in places] for name, parts in self.scopes.items()},
            [*self.dropped, *dropped],
            [self.numbers[place] for place in places],
        )

    def without(self, reasons: dict[int, str]) -> "AnnotatedTable":
        """Without the places given, each dropped for its reason."""
        return self.select(*kept_and_dropped(np.array(self.numbers), reasons))

    def cut(self, length: int) -> "AnnotatedTable":
        """Every sequence with its labels after so many residues."""
        return AnnotatedTable(
            self.names,
            [sequence[:length] for sequence in self.sequences],
            Picked(self.labels, range(len(self)), length),
            {name: [part[:length] for part in parts] for name, parts in self.scopes.items()},
            self.dropped,
            self.numbers,
        )


class Picked(Sequence[Any]):
    """Some entries of a sequence that makes them when they are asked for.

    Args:
        length: each entry is cut to so many residues; null leaves it.
    """

    def __init__(
        self,
        of: Sequence[Any],
        places: Sequence[int] | np.ndarray,
        length: int | None = None,
    ):
        self.of, self.places, self.length = of, list(map(int, places)), length

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: Any) -> Any:
        entry = self.of[self.places[place]]
        if self.length is None or np.ndim(entry) == 0:
            return entry
        return entry[(slice(self.length),) * np.ndim(entry)]


class AnnotatedSource(Protocol):
    """Training and validation data, and any number of tests.

    Attributes:
        name: as the user says it: ``data=secondary_structure``.
        site: ``residue``, ``pair`` or ``chain``.
        classes: their names, in the order of their numbers.
        measure: what the share of right answers is called: ``q3``.
        tests: names of the test sets; the first one is the headline.
        card: what a reader of the numbers has to know.
    """

    name: str
    site: str
    classes: tuple[str, ...]
    measure: str
    tests: tuple[str, ...]
    card: dict[str, Any]

    def digest(self) -> str: ...

    def fetch(self) -> None: ...

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable: ...

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]: ...


def padded_sites(site: str, labels: Sequence[Any], rows: np.ndarray, width: int) -> Tensor:
    """Classes of a batch by token, int64: (B, T), (B, T, T) or (B,); -1 on what is no residue."""
    if site == "chain":
        return torch.tensor([int(labels[row]) for row in rows])
    shape = (len(rows), width) if site == "residue" else (len(rows), width, width)
    sites = np.full(shape, UNSCORED, np.int64)
    for place, row in enumerate(rows):
        found = np.asarray(labels[row])
        inner = slice(BEGIN, BEGIN + len(found))
        sites[(place, inner) if site == "residue" else (place, inner, inner)] = found
    return torch.from_numpy(sites)


@dataclass
class TokenisedAnnotations:
    """A split, ready for batches.

    Attributes:
        proteins_N: which protein each row is of: its own number, or the same for all windows of one.
        same_P: of each protein the number of the first one that has its sequence, which its copies share.
    """

    tokens: TokenTable
    table: AnnotatedTable
    proteins_N: np.ndarray
    same_P: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def num_proteins(self) -> int:
        return len(np.unique(self.proteins_N))

    @property
    def num_distinct(self) -> int:
        """Sequences, each counted once."""
        return len(np.unique(self.same_P))
