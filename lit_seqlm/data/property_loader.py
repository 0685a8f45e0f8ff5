"""A tokenised split with its labels, and batches of it."""

# N = sequences, K = targets, C = covariates, B = sequences of a batch, T = tokens

import logging
from dataclasses import dataclass

import numpy as np
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.ranks import Share
from lit_seqlm.data.resumable import ShareLoader
from lit_seqlm.data.token_table import TokenTable

log = logging.getLogger(__name__)


@dataclass
class TokenisedTable:
    """One split, ready for batches; rows as in `PropertyTable`."""

    tokens: TokenTable
    sequences: list[str]
    written: list[str]
    labels_NK: np.ndarray
    covariates_NC: np.ndarray
    rows_N: np.ndarray

    def __len__(self) -> int:
        return len(self.sequences)


class PropertyLoader(ShareLoader):
    """Batches of a table by their rows, in the order given."""

    def __init__(self, table: TokenisedTable, share: Share, pad_id: int, multiple: int):
        super().__init__(share)
        self.table, self.pad_id, self.multiple = table, pad_id, multiple

    def batch(self, rows: np.ndarray, number: int) -> Batch:
        tokens_BT, valid_BT = self.table.tokens.pad(rows, self.pad_id, self.multiple)
        return Batch(
            tokens_BT=tokens_BT,
            targets_BT=tokens_BT,
            valid_BT=valid_BT,
            labels_BK=torch.from_numpy(self.table.labels_NK[rows]),
            covariates_BC=torch.from_numpy(self.table.covariates_NC[rows]),
            rows_B=torch.from_numpy(np.asarray(rows, np.int64)),
        )


def truncated(tokens: TokenTable, max_len: int, num_ends: int, where: str = "") -> TokenTable:
    """The first `max_len` tokens of each row, with its begin and, where there is one, its end.

    Args:
        where: begins a line in the log of how many are cut; empty: none.
    """
    most = max_len + num_ends
    num_long = int((tokens.lengths > most).sum())
    if not num_long:
        return tokens
    if where:
        told = where, num_long, len(tokens), max_len
        log.warning("%s: %d of %d sequences are cut after %d tokens", *told)
    return TokenTable.of(
        row
        if len(row) <= most
        else np.concatenate([row[: max_len + 1], row[len(row) + 1 - num_ends :]])
        for row in map(tokens.__getitem__, range(len(tokens)))
    )
