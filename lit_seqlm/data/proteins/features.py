"""Fixed features of proteins, for models that are no neural networks."""

# N = sequences, F = features, L = residues of all sequences

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import STANDARD

FEATURES = ("composition", "positions")
MOST_COLUMNS = 6_000  # ridge solves a system of as many
BYTES = 128
OTHER = len(STANDARD)

_NUMBER_OF_BYTE = np.full(BYTES, OTHER, np.int64)  # of the 20 residues
_NUMBER_OF_BYTE[np.frombuffer(STANDARD.encode(), np.uint8)] = np.arange(len(STANDARD))


def composition(sequences: Sequence[str]) -> sparse.csr_matrix:
    """How often each of the 20 residues and of their 400 pairs of neighbours occurs, uint32 (N, 420).

    B, Z, U, O and X are not counted, nor pairs with one of them.
    """
    residues_L, row_L, _ = _residues(sequences)
    number_L = _NUMBER_OF_BYTE[residues_L]
    known_L = number_L < OTHER
    pairs_L = known_L[:-1] & known_L[1:] & (row_L[:-1] == row_L[1:])
    first_L, second_L = number_L[:-1][pairs_L], number_L[1:][pairs_L]
    columns = np.concatenate([number_L[known_L], OTHER + OTHER * first_L + second_L])
    rows = np.concatenate([row_L[known_L], row_L[:-1][pairs_L]])
    return _counted(rows, columns, (len(sequences), OTHER + OTHER**2))


class Positions:
    """Which residue stands at which position: for variants of one protein, without an alignment.

    A column is a residue at a position where some sequence of the set has it; what a shorter chain lacks
    is zero.

    Args:
        sequences: of the whole set; labels play no part.

    Raises:
        UserError: they are so different that there would be more than `MOST_COLUMNS` columns.
    """

    def __init__(self, sequences: Sequence[str]):
        occurs = np.bincount(self._codes(sequences)[0]) > 0
        self.num_columns = int(occurs.sum())
        if self.num_columns > MOST_COLUMNS:
            raise UserError(
                f"data.source.features=positions: {self.num_columns:,} residues at positions, which are for variants "
                f"of one protein (at most {MOST_COLUMNS:,}). Say data.source.features=composition."
            )
        self._column_of_code = np.where(occurs, np.cumsum(occurs) - 1, -1)

    def __call__(self, sequences: Sequence[str]) -> sparse.csr_matrix:
        """Zeros and ones, uint32 (N, F)."""
        codes_L, row_L = self._codes(sequences)
        inside_L = codes_L < len(self._column_of_code)
        columns_L = self._column_of_code[np.where(inside_L, codes_L, 0)]
        known_L = inside_L & (columns_L >= 0)
        return _counted(row_L[known_L], columns_L[known_L], (len(sequences), self.num_columns))

    @staticmethod
    def _codes(sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        residues_L, row_L, position_L = _residues(sequences)
        return position_L * BYTES + residues_L, row_L


def _residues(sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All residues end to end as bytes, and of each its sequence and its position there."""
    residues_L = np.frombuffer("".join(sequences).encode(), np.uint8).astype(np.int64)
    lengths_N = np.array([len(sequence) for sequence in sequences], np.int64)
    row_L = np.repeat(np.arange(len(sequences)), lengths_N)
    starts_N = np.cumsum(lengths_N) - lengths_N
    return residues_L, row_L, np.arange(len(residues_L)) - starts_N[row_L]


def _counted(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(rows), np.uint32), (rows, columns)), shape=shape)
