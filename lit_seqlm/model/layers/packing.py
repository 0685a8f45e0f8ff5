"""Sequences end to end in one row, each alone with itself: block-diagonal attention without its blocks."""

# B = rows, T = tokens of a row, N = B * T tokens end to end, S = sequences

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """`num` sequences of `length` tokens each, end to end from token `start` on."""

    start: int
    num: int
    length: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.start + self.num * self.length)


@dataclass(frozen=True)
class Packing:
    """Where the sequences of packed rows begin and end.

    Token i attends to token j if both are of one sequence, and a token's position counts from the
    first of its sequence (Xiao et al. 2021, `get_tape_masks_and_position_ids` of the code). Neighbours
    of one length are attended to together, as a batch: so a loader does well to sort by length.

    Attributes:
        lengths: tokens of each sequence, in their order.
        device: of the tensors.
    """

    lengths: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(cls, segments_BT: Tensor) -> "Packing":
        """From the number of each token's sequence; equal neighbours within a row are one sequence."""
        num_rows, width = segments_BT.shape
        begins_BT = torch.ones_like(segments_BT, dtype=torch.bool)
        begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
        starts_S = begins_BT.flatten().nonzero().flatten()
        ends_S = torch.cat([starts_S[1:], starts_S.new_tensor([num_rows * width])])
        return cls(tuple((ends_S - starts_S).tolist()), segments_BT.device)

    @cached_property
    def runs(self) -> list[Run]:
        """All sequences, those of one length that follow each other as one."""
        runs: list[Run] = []
        start = 0
        for length in self.lengths:
            if runs and runs[-1].length == length:
                runs[-1] = runs[-1]._replace(num=runs[-1].num + 1)
            else:
                runs.append(Run(start, 1, length))
            start += length
        return runs

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @cached_property
    def positions(self) -> Tensor:
        """Of each token in its sequence."""
        lengths_S = torch.tensor(self.lengths)
        starts_S = lengths_S.cumsum(0) - lengths_S
        total = int(lengths_S.sum())
        places_N = torch.arange(total) - starts_S.repeat_interleave(lengths_S)
        return places_N.to(self.device)

    def mask(self) -> Tensor:
        """Which token attends to which, bool (N, N): what all this stands for, and its oracle."""
        lengths_S = torch.tensor(self.lengths)
        owner_N = torch.arange(len(lengths_S)).repeat_interleave(lengths_S).to(self.device)
        return owner_N[:, None] == owner_N
