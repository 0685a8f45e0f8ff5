"""Molecules of any file as rows for a trained model."""

# N = molecules, C = covariates

from collections.abc import Iterator, Sequence

import numpy as np

from lit_seqlm.data.chemistry.canonical import canonicalize
from lit_seqlm.data.chemistry.composition import ELEMENTS, composition
from lit_seqlm.data.chemistry.rows import read_rows
from lit_seqlm.data.input_rows import OK, InputRow

USUAL_COLUMN = "smiles"


def molecule_rows(path: str, column: str | None, isomeric: bool) -> Iterator[InputRow]:
    """Every row of a file, canonical where it is a molecule, else with the status `canonicalize` gives it.

    Args:
        path: see `read_rows`.
        column: of the SMILES; null: ``smiles``.
        isomeric: whether stereo marks are kept, as the model's tokenizer says.

    Raises:
        UserError: for a file that is missing, broken, or has no such column.
    """
    for row in read_rows(path, column or USUAL_COLUMN, others=[]):
        found = canonicalize(row.smiles, isomeric)
        status, _, reason = found.reason.partition(": ")
        yield InputRow(row.number, row.smiles, found.smiles, status or OK, reason)


def atom_counts(smiles: Sequence[str]) -> np.ndarray:
    """Atoms of each of `ELEMENTS`, float64 (N, C): what extensive targets are residualised on."""
    counts_NC = np.zeros((len(smiles), len(ELEMENTS)))
    for row, one in enumerate(smiles):
        counts_NC[row] = composition(one)
    return counts_NC
