"""Sequences and labels of a file, read strictly: every mistake names its row and column."""

# N = sequences, K = targets

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.data.chemistry.rows import read_rows
from lit_seqlm.errors import UserError

MISSING = {"", "nan", "na", "n/a", "null", "none"}  # in lower case


@dataclass
class LabelRows:
    """All rows of a file.

    Attributes:
        sequences: as written.
        labels_NK: float64, NaN where missing.
        numbers_N: int64, of each row in its file, from 1 below the heading.
        marks: another column of each row, such as its split; empty without one.
    """

    sequences: list[str]
    labels_NK: np.ndarray
    numbers_N: np.ndarray
    marks: list[str]

    @classmethod
    def joined(cls, parts: Sequence["LabelRows"]) -> "LabelRows":
        return cls(
            [sequence for part in parts for sequence in part.sequences],
            np.concatenate([part.labels_NK for part in parts]),
            np.concatenate([part.numbers_N for part in parts]),
            [mark for part in parts for mark in part.marks],
        )

    def select(self, places: np.ndarray) -> "LabelRows":
        """Some of its rows, in the order given."""
        return LabelRows(
            [self.sequences[place] for place in places],
            self.labels_NK[places],
            self.numbers_N[places],
            [self.marks[place] for place in places] if self.marks else [],
        )


def read_label_rows(
    path: Path,
    sequence_column: str,
    label_columns: Sequence[str],
    mark_column: str | None,
    kind: str,
) -> LabelRows:
    """Read what is needed of a table (`lit_seqlm.data.chemistry.rows` has the kinds).

    Args:
        label_columns: numbers; empty or ``nan`` where missing.
        mark_column: kept as it is; null for none.
        kind: ``classification`` takes only 0 and 1.

    Raises:
        UserError: for a column that is not there, a label that is no number, or no rows.
    """
    extra = [] if mark_column is None else [mark_column]
    sequences, labels, numbers, marks = [], [], [], []
    for row in read_rows(str(path), sequence_column, [*label_columns, *extra]):
        sequences.append(row.smiles)
        labels.append(
            [_label(row.columns[name], f"{path}, row {row.number}", name) for name in label_columns]
        )
        numbers.append(row.number)
        if mark_column is not None:
            marks.append(str(row.columns[mark_column]))
    if not sequences:
        raise UserError(f"{path} has a heading but no rows.")
    labels_NK = np.array(labels, np.float64).reshape(len(sequences), len(label_columns))
    _check_values(labels_NK, label_columns, path, kind)
    return LabelRows(sequences, labels_NK, np.array(numbers, np.int64), marks)


def _label(cell: Any, where: str, column: str) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        if cell is None or str(cell).strip().lower() in MISSING:
            return math.nan
        raise UserError(
            f"{where}, column {column!r}: {cell!r} is no number. Leave a missing label empty."
        ) from None


def _check_values(labels_NK: np.ndarray, columns: Sequence[str], path: Path, kind: str) -> None:
    """No infinite label; only 0 and 1 where they are classes."""
    wrong_NK = np.isinf(labels_NK)
    wanted = "a label is a finite number"
    if kind == "classification" and not wrong_NK.any():
        wrong_NK = ~(np.isnan(labels_NK) | np.isin(labels_NK, (0, 1)))
        wanted = "a class is 0 or 1, or empty where it is missing"
    if wrong_NK.any():
        place, column = np.argwhere(wrong_NK)[0]
        raise UserError(
            f"{path}, row {place + 1}, column {columns[column]!r}: "
            f"{labels_NK[place, column]:g}; {wanted}."
        )
