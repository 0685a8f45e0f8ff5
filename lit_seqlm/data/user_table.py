"""A user's own table of sequences with labels."""

# N = sequences, K = targets

from pathlib import Path
from typing import ClassVar

import numpy as np
import pooch

from lit_seqlm.data.label_rows import LabelRows, read_label_rows
from lit_seqlm.data.property_source import Dropped, PropertyTable
from lit_seqlm.data.row_source import RowSource
from lit_seqlm.data.targets import Target, plain_target
from lit_seqlm.errors import UserError

KINDS = ("regression", "classification")
REPEATS = ("error", "drop", "keep")


class UserTable(RowSource):
    """Any CSV, TSV or parquet file with a column of sequences and one or more of labels.

    A missing label is an empty cell. A row that says again what an earlier row says, the same sequence
    with the same labels, would be in two splits; the same sequence with other labels is kept and named by
    the audit. A subclass is of a field as well, which makes it a `RowSource`.

    Attributes:
        column_option: of the column of sequences, as the field calls it.
        what: a sequence of the field, and its column.

    Raises:
        UserError: in `fetch` and `table`, for what is wrong in the file.
    """

    column_option: ClassVar[str]
    what: ClassVar[tuple[str, str]]

    def reads(self, path: str, sequence_column: str, split_column: str, repeats: str) -> None:
        """Where the rows are.

        Args:
            path: the file.
            split_column: read by ``split=column``: train, valid or test.
            repeats: what becomes of a row that repeats another: ``error``, ``drop`` (and report), or
                ``keep``.
        """
        columns = [*(target.column for target in self.targets), sequence_column]
        self._check_distinct([*columns, *[split_column][: self.split == "column"]])
        self.path, self.sequence_column = Path(path), sequence_column
        self.split_column, self.repeats = split_column, repeats
        self._repeated: list[Dropped] = []

    def fetch(self) -> None:
        if not self.path.is_file():
            raise UserError(
                f"data.source.path={self.path}: there is no such file. Give a CSV file with a "
                f"column of {self.what[1]} and columns of labels."
            )

    def digest(self) -> str:
        """SHA-256 of the file."""
        self.fetch()
        return pooch.file_hash(str(self.path))

    def read(self) -> LabelRows:
        self.fetch()
        rows = read_label_rows(
            self.path,
            self.sequence_column,
            [target.column for target in self.targets],
            self.split_column if self.split == "column" else None,
            self.kind,
        )
        return rows if self.repeats == "keep" else self._without_repeats(rows)

    def table(self, split: str, tokenizer: object) -> PropertyTable:
        found = super().table(split, tokenizer)
        if split == "train":
            found.dropped = sorted([*found.dropped, *self._repeated])
        return found

    def _without_repeats(self, rows: LabelRows) -> LabelRows:
        """The first of rows with one sequence, finer marks included, and the same labels."""
        keys = self.identities(rows.sequences, merged=False)
        first: dict[tuple[str, bytes], int] = {}
        kept = []
        for place, (key, labels_K) in enumerate(zip(keys, rows.labels_NK, strict=True)):
            number = int(rows.numbers_N[place])
            earlier = first.setdefault((key, labels_K.tobytes()), number) if key else number
            if earlier == number:
                kept.append(place)
            elif self.repeats == "error":
                raise UserError(
                    f"{self.path}, row {number} repeats row {earlier}: the same {self.what[0]} "
                    f"({key}) with the same labels. Remove it, or say data.source.repeats=drop "
                    "(or keep)."
                )
            else:
                self._repeated.append(Dropped(number, f"repeats row {earlier}"))
        return rows.select(np.array(kept, np.int64))

    def _check_distinct(self, columns: list[str]) -> None:
        for name in columns:
            if columns.count(name) > 1:
                raise UserError(
                    f"data.source: column {name!r} is named twice. {self.column_option}, split_column "
                    "and each of target_columns must be columns of their own."
                )


def user_targets(
    target_columns: str | list[str], unit: str, kind: str, repeats: str
) -> list[Target]:
    """One for each column of labels, named after it; other options are checked beside."""
    for key, value, words in (("kind", kind, KINDS), ("repeats", repeats, REPEATS)):
        if value not in words:
            raise UserError(f"data.source.{key}={value}: choose {', '.join(words)}.")
    columns = [target_columns] if isinstance(target_columns, str) else list(target_columns)
    if not columns:
        raise UserError("data.source.target_columns is empty. Name one column of labels.")
    return [plain_target(column, column, unit) for column in columns]
