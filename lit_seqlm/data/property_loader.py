"""A tokenised split with its labels, and batches of it."""

# N = sequences, K = targets, C = covariates, B = sequences of a batch, T = tokens

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.ranks import Share
from lit_seqlm.data.token_table import TokenTable


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


class PropertyLoader:
    """Batches of a table by their rows, in the order given.

    Its place is in the checkpoint; an iterator begins at the start unless a place was loaded.
    """

    def __init__(self, table: TokenisedTable, share: Share, pad_id: int, multiple: int):
        self.table, self.share = table, share
        self.pad_id, self.multiple = pad_id, multiple
        self.position = 0  # batches handed out so far in this epoch
        self._resume_at = 0

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[Batch]:
        first, self._resume_at = self._resume_at, 0
        self.position = first
        for index in range(first, len(self)):
            self.position = (index + 1) % len(self)  # an epoch's end is the next one's start
            batch = self.batch(self.share.batches[index])
            yield batch if index < self.share.num_scored else batch.silenced()

    def batch(self, rows: np.ndarray) -> Batch:
        tokens_BT, valid_BT = self.table.tokens.pad(rows, self.pad_id, self.multiple)
        return Batch(
            tokens_BT=tokens_BT,
            targets_BT=tokens_BT,
            valid_BT=valid_BT,
            labels_BK=torch.from_numpy(self.table.labels_NK[rows]),
            covariates_BC=torch.from_numpy(self.table.covariates_NC[rows]),
            rows_B=torch.from_numpy(np.asarray(rows, np.int64)),
        )

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = self._resume_at = state["position"]


def truncated(tokens: TokenTable, max_len: int) -> TokenTable:
    """The first `max_len` tokens of each row between its two ends."""
    if not len(tokens) or tokens.lengths.max() <= max_len + 2:
        return tokens
    return TokenTable.of(
        row if len(row) <= max_len + 2 else np.append(row[: max_len + 1], row[-1])
        for row in map(tokens.__getitem__, range(len(tokens)))
    )
