"""Rows of packed sequences, and batches of such rows without any padding."""

# S = sequences of a batch, N = tokens of all of them, R = rows

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.masked_loader import SPREAD, Masker
from lit_seqlm.data.masking import CountedMasking
from lit_seqlm.data.token_table import TokenTable

Rows = list[np.ndarray]  # of each row, its sequences in the table


def pack(order: np.ndarray, lengths_N: np.ndarray, room: int) -> Rows:
    """Rows of at most `room` tokens: sequences in the order given, a new row where the next does not fit.

    No sequence is split (Xiao et al. 2021, `megatron/data/tape_dataset.py`).
    """
    rows: Rows = []
    start = used = 0
    for place, length in enumerate(lengths_N[order].tolist()):
        if used and used + length > room:
            rows.append(order[start:place])
            start, used = place, 0
        used += length
    return [*rows, order[start:]] if len(order) else rows


def row_batches(
    order: np.ndarray, lengths_N: np.ndarray, room: int, token_budget: int
) -> list[Rows]:
    """Packed rows, as many to a batch as the budget takes, and at least one."""
    rows = pack(order, lengths_N, room)
    size = max(1, token_budget // room)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class PackedMasker(Masker):
    """Makes a batch of some packed rows: a pure function of the rows, a seed and the batch's number.

    A batch is one long row, (1, N). Its sequences lie in the order of their lengths, so that those of one length
    are attended to together; which tokens are masked is decided before that, row by row or sequence by sequence, as
    the masking's `unit` says.
    """

    def __call__(self, table: TokenTable, rows: Any, seed: int, number: int) -> Batch:
        order_S = np.concatenate(rows)
        packed = table.select(order_S)
        by_row = isinstance(self.masking, CountedMasking) and self.masking.unit == "row"
        counted = packed
        if by_row:
            ends = np.cumsum([len(row) for row in rows])
            counted = TokenTable(packed.ids, packed.offsets[np.concatenate([[0], ends])])
        tokens_RT, valid_RT = counted.pad(np.arange(len(counted)), self.pad_id)
        generator = torch.Generator().manual_seed(seed * SPREAD + number)
        read_RT, selected_RT = self.masking(tokens_RT, self.vocabulary, generator)
        if valid_RT is None:
            valid_RT = torch.ones_like(selected_RT)
        flat = (read_RT[valid_RT], tokens_RT[valid_RT], selected_RT[valid_RT])
        by_length = np.argsort(packed.lengths, kind="stable")
        places_N = torch.from_numpy(_places(packed, by_length))
        read_1N, tokens_1N, selected_1N = (part[places_N][None] for part in flat)
        lengths_S = torch.from_numpy(packed.lengths[by_length])
        segments_N = torch.arange(len(order_S)).repeat_interleave(lengths_S)
        return Batch(read_1N, tokens_1N, selected_1N, segments_BT=segments_N[None])


def _places(table: TokenTable, order: np.ndarray) -> np.ndarray:
    """Where the tokens of its rows stand in the table, rows in the order given."""
    lengths = table.lengths[order]
    firsts = np.repeat(table.offsets[:-1][order], lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return firsts + within
