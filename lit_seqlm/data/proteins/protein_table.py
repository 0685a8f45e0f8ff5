"""A user's own table of proteins with labels."""

from dataclasses import replace

from lit_seqlm.data.proteins.property_source import MEASURES, Proteins
from lit_seqlm.data.proteins.reading import Reading
from lit_seqlm.data.splits import Fractions
from lit_seqlm.data.table_rows import DELIMITERS
from lit_seqlm.data.user_table import UserTable, user_targets
from lit_seqlm.errors import UserError

TABLES = (*DELIMITERS, ".parquet")


class ProteinTable(UserTable, Proteins):
    """Any CSV, TSV or parquet file with a column of sequences and one or more of labels; see `UserTable`.

    Args:
        path: the file.
        sequence_column: its column of sequences.
        target_columns: one column of labels, or several; targets are named after them.
        kind: ``regression``, or ``classification`` with labels 0 and 1.
        unit: of all labels; empty where it is not known.
        cut: labels above and below it are also scored apart; null: they are not.
        split: ``random``, or ``column``.
        split_column: read by ``column``: train, valid or test.
        repeats: what becomes of a row that repeats another: ``error``, ``drop`` (and report), or
            ``keep``.
        stop, illegal: see `Reading`.
        features: see `Proteins`.

    Raises:
        UserError: for options that cannot be.
    """

    column_option, what = "sequence_column", ("protein", "sequences")

    def __init__(
        self,
        path: str,
        sequence_column: str,
        target_columns: str | list[str],
        kind: str,
        unit: str,
        cut: float | None,
        split: str,
        split_column: str,
        valid_fraction: float,
        test_fraction: float,
        split_seed: int,
        repeats: str,
        stop: str,
        illegal: str,
        features: str,
    ):
        targets = user_targets(target_columns, unit, kind, repeats)
        Proteins.__init__(
            self,
            "protein_table",
            kind,
            [replace(target, measures=MEASURES, cut=cut) for target in targets],
            split,
            Fractions(valid_fraction, test_fraction),
            split_seed,
            Reading(stop, illegal),
            features,
        )
        self.reads(path, sequence_column, split_column, repeats)

    def fetch(self) -> None:
        super().fetch()
        if not self.path.name.lower().removesuffix(".gz").endswith(TABLES):
            raise UserError(
                f"data.source.path={self.path}: labels are read from {', '.join(TABLES)}, all but parquet also with "
                ".gz. FASTA has no columns: write name, sequence and labels as CSV."
            )
