"""Fixed features for models that are no neural networks."""

# N = sequences, F = features, C = covariates

from itertools import pairwise

import numpy as np
from scipy import sparse

from lit_seqlm.data.properties import PropertyData
from lit_seqlm.data.property_loader import TokenisedTable


def token_counts(data: PropertyData, splits: tuple[str, ...]) -> dict[str, sparse.csr_matrix]:
    """How often each token and each pair of neighbours occurs, then the covariates; float64 (N, F).

    What training does not have is not counted elsewhere.
    """
    columns: dict[tuple[int, ...], int] = {}
    train = data.tables["train"]
    for row in range(len(train)):
        for pattern in _patterns(train, row):
            columns.setdefault(pattern, len(columns))
    return {split: _counted(data.tables[split], columns) for split in splits}


def fingerprint_counts(data: PropertyData, splits: tuple[str, ...]) -> dict[str, sparse.csr_matrix]:
    """The source's fingerprints, then the covariates; float64 (N, F)."""
    found = {}
    for split in splits:
        table = data.tables[split]
        counts_NF = sparse.csr_matrix(data.source.fingerprints(table.sequences), dtype=np.float64)
        found[split] = _with_covariates(counts_NF, table)
    return found


def _patterns(table: TokenisedTable, row: int) -> list[tuple[int, ...]]:
    ids = table.tokens[row].tolist()
    return [*((token,) for token in ids), *pairwise(ids)]


def _counted(table: TokenisedTable, columns: dict[tuple[int, ...], int]) -> sparse.csr_matrix:
    rows, places = [], []
    for row in range(len(table)):
        for pattern in _patterns(table, row):
            if (place := columns.get(pattern)) is not None:
                rows.append(row)
                places.append(place)
    shape = (len(table), len(columns))
    counts_NF = sparse.csr_matrix((np.ones(len(rows)), (rows, places)), shape=shape)
    return _with_covariates(counts_NF, table)


def _with_covariates(counts_NF: sparse.csr_matrix, table: TokenisedTable) -> sparse.csr_matrix:
    return sparse.hstack([counts_NF, sparse.csr_matrix(table.covariates_NC)], format="csr")
