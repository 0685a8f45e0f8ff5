"""A user's own table of molecules with labels."""

# N = molecules, K = targets

import logging
from pathlib import Path

import numpy as np
import pooch

from lit_seqlm.data.label_rows import LabelRows, read_label_rows
from lit_seqlm.data.molecule_forms import molecule_forms
from lit_seqlm.data.molecules import Molecules
from lit_seqlm.data.property_source import Dropped, PropertyTable
from lit_seqlm.data.splits import Fractions
from lit_seqlm.data.targets import plain_target
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

KINDS = ("regression", "classification")
REPEATS = ("error", "drop", "keep")


class MoleculeTable(Molecules):
    """Any CSV, TSV or parquet file with a column of SMILES and one or more of labels.

    A missing label is an empty cell. A row that says again what an earlier row says, the same
    molecule with the same labels, would be in two splits; the same molecule with other labels is
    kept and named by the audit.

    Args:
        path: the file.
        smiles_column: its column of SMILES.
        target_columns: one column of labels, or several; targets are named after them.
        kind: ``regression``, or ``classification`` with labels 0 and 1.
        unit: of all labels; empty where it is not known.
        split: ``random``, ``scaffold_balanced``, ``scaffold_strict``, or ``column``.
        split_column: read by ``column``: train, valid or test.
        repeats: what becomes of a row that repeats another: ``error``, ``drop`` (and report), or
            ``keep``.

    Raises:
        UserError: for options that cannot be; in `fetch` and `table`, for what is wrong in the file.
    """

    def __init__(
        self,
        path: str,
        smiles_column: str,
        target_columns: str | list[str],
        kind: str,
        unit: str,
        split: str,
        split_column: str,
        valid_fraction: float,
        test_fraction: float,
        split_seed: int,
        repeats: str,
        cache_dir: str | None,
    ):
        for key, value, words in (("kind", kind, KINDS), ("repeats", repeats, REPEATS)):
            if value not in words:
                raise UserError(f"data.source.{key}={value}: choose {', '.join(words)}.")
        columns = [target_columns] if isinstance(target_columns, str) else list(target_columns)
        if not columns:
            raise UserError("data.source.target_columns is empty. Name one column of labels.")
        _check_distinct([*columns, smiles_column, *[split_column][: split == "column"]])
        super().__init__(
            "molecule_table",
            kind,
            [plain_target(column, column, unit) for column in columns],
            split,
            Fractions(valid_fraction, test_fraction),
            split_seed,
            cache_dir,
        )
        self.path, self.smiles_column = Path(path), smiles_column
        self.split_column, self.repeats = split_column, repeats
        self._repeated: list[Dropped] = []

    def fetch(self) -> None:
        if not self.path.is_file():
            raise UserError(
                f"data.source.path={self.path}: there is no such file. Give a CSV file with a "
                "column of SMILES and columns of labels."
            )

    def digest(self) -> str:
        """SHA-256 of the file."""
        self.fetch()
        return pooch.file_hash(str(self.path))

    def read(self) -> LabelRows:
        self.fetch()
        rows = read_label_rows(
            self.path,
            self.smiles_column,
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
        """The first of rows with one molecule, stereo included, and the same labels."""
        forms = molecule_forms(rows.sequences, True, self.cache_dir, f"data={self.name}")
        first: dict[tuple[str, bytes], int] = {}
        kept = []
        for place, (smiles, labels_K) in enumerate(zip(forms.smiles, rows.labels_NK, strict=True)):
            number = int(rows.numbers_N[place])
            earlier = first.setdefault((smiles, labels_K.tobytes()), number) if smiles else number
            if earlier == number:
                kept.append(place)
            elif self.repeats == "error":
                raise UserError(
                    f"{self.path}, row {number} repeats row {earlier}: the same molecule "
                    f"({smiles}) with the same labels. Remove it, or say data.source.repeats=drop "
                    "(or keep)."
                )
            else:
                self._repeated.append(Dropped(number, f"repeats row {earlier}"))
        return rows.select(np.array(kept, np.int64))


def _check_distinct(columns: list[str]) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise UserError(
                f"data.source: column {name!r} is named twice. smiles_column, split_column and each "
                "of target_columns must be columns of their own."
            )
