"""A user's own table of molecules with labels."""

from lit_seqlm.data.molecules import Molecules
from lit_seqlm.data.splits import Fractions
from lit_seqlm.data.user_table import UserTable, user_targets


class MoleculeTable(UserTable, Molecules):
    """Any CSV, TSV or parquet file with a column of SMILES and one or more of labels; see `UserTable`.

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
        UserError: for options that cannot be.
    """

    column_option, what = "smiles_column", ("molecule", "SMILES")

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
        Molecules.__init__(
            self,
            "molecule_table",
            kind,
            user_targets(target_columns, unit, kind, repeats),
            split,
            Fractions(valid_fraction, test_fraction),
            split_seed,
            cache_dir,
        )
        self.reads(path, smiles_column, split_column, repeats)
