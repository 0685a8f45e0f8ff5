"""Sequences with labels: what a source gives for each split."""

# N = sequences, K = targets, C = covariates

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy import sparse

from lit_seqlm.console import FILE_ONLY, log_files
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.targets import Target

log = logging.getLogger(__name__)

SHOWN = 3  # dropped rows named on the screen


class Dropped(NamedTuple):
    """A row of the file that is not used: its number, from 1 below the heading, and why."""

    row: int
    reason: str


@dataclass
class PropertyTable:
    """The usable rows of one split.

    Attributes:
        sequences: in the form that the tokenizer reads.
        written: the same as the file has them.
        labels_NK: float64 in the targets' units, NaN where missing.
        covariates_NC: float64, what labels may be residualised on.
        rows_N: int64, each one's row in the file, from 1 below the heading.
        dropped: the rows that are not among them.
    """

    sequences: list[str]
    written: list[str]
    labels_NK: np.ndarray
    covariates_NC: np.ndarray
    rows_N: np.ndarray
    dropped: list[Dropped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sequences)

    def select(self, places: np.ndarray, dropped: Iterable[Dropped] = ()) -> "PropertyTable":
        """Some of its rows, in the order given, and those more that were dropped."""
        return PropertyTable(
            [self.sequences[place] for place in places],
            [self.written[place] for place in places],
            self.labels_NK[places],
            self.covariates_NC[places],
            self.rows_N[places],
            [*self.dropped, *dropped],
        )

    def without(self, reasons: dict[int, str]) -> "PropertyTable":
        """Without the places given, each dropped for its reason."""
        return self.select(*kept_and_dropped(self.rows_N, reasons))


class PropertySource(Protocol):
    """Three splits of sequences with labels; a wrong copy of a published set is refused at `fetch`.

    Attributes:
        name: as the user says it: ``data=qm8``.
        kind: ``regression``, or ``classification`` with labels 0 and 1.
        covariates: what each column of the covariates counts.
        has_variants: whether a sequence can be written in another way.
        group_word: what `groups` are called; empty where there are none.
        mark_word: what `identities` overlooks.
    """

    name: str
    kind: str
    targets: list[Target]
    covariates: tuple[str, ...]
    has_variants: bool
    group_word: str
    mark_word: str

    def digest(self) -> str:
        """Empty where name and options alone say which data it is."""

    def fetch(self) -> None: ...

    def table(self, split: str, tokenizer: Any) -> PropertyTable:
        """A split in the form that this tokenizer reads."""

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        """Any other file's rows in the form that this tokenizer reads; null: the usual column."""

    def covariates_of(self, sequences: list[str]) -> np.ndarray:
        """Of sequences in that form, float64 (N, C)."""

    def variant(self, sequence: str, seed: int) -> str:
        """Another way to write the same sequence, where there is one."""

    def identities(self, written: list[str], merged: bool) -> list[str]:
        """A key that two rows share if they are the same thing; `merged` overlooks finer marks."""

    def groups(self, sequences: list[str]) -> list[str]:
        """What near relatives share, such as a scaffold; empty for a sequence that has none."""

    def fingerprints(self, sequences: list[str]) -> "np.ndarray | sparse.csr_matrix":
        """Counts of local patterns (N, F), as the field's usual baselines read them."""


def kept_and_dropped(
    rows_N: np.ndarray, reasons: dict[int, str]
) -> tuple[np.ndarray, list[Dropped]]:
    """Places of a table that stay, and the others' rows in the file, each with its reason."""
    dropped = [Dropped(int(rows_N[place]), why) for place, why in reasons.items()]
    return np.delete(np.arange(len(rows_N)), list(reasons)), dropped


def report_dropped(where: str, dropped: list[Dropped]) -> None:
    """See `report_left_out`, of rows."""
    report_left_out(where, "row", [f"row {row}: {reason}" for row, reason in sorted(dropped)])


def report_left_out(where: str, noun: str, told: list[str]) -> None:
    """One line on the screen: how many, and the first few with their reasons; all of them in the log's file, if any.

    Args:
        noun: one of them: ``row``.
        told: of each its name and the reason.
    """
    if told:
        first = "; ".join(told[:SHOWN])
        kept = ", all in run.log" if log_files() else ""
        more = f"; ...{kept}" if len(told) > SHOWN else ""
        what = f"{noun} is" if len(told) == 1 else f"{noun}s are"
        log.warning("%s: %d %s left out (%s%s)", where, len(told), what, first, more)
        if more:
            log.info("%s, left out:\n  %s", where, "\n  ".join(told), extra=FILE_ONLY)


def report_unknown(where: str, table: PropertyTable, tokenizer: Any) -> None:
    """Tokens outside the vocabulary in one line, with the first rows that have one."""
    known, rows = set(tokenizer.vocabulary), []
    for place, sequence in enumerate(table.sequences):
        if strange := set(tokenizer.split(sequence)) - known:
            rows.append(f"row {table.rows_N[place]}: {' '.join(sorted(strange))}")
            if len(rows) == SHOWN:
                break
    log.warning("%s: unknown tokens: %d (%s)", where, tokenizer.num_unknown, "; ".join(rows))
