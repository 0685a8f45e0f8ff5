"""Quantiles (Koenker and Bassett, 1978)."""

# B = sequences, K = targets, P = numbers for each target, Q = quantile levels

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.head.molformer import MolformerHead
from lit_seqlm.head.prediction import QuantilePrediction

MEDIAN = 0.5
SMALLEST = 1e-6  # step on the scaled targets: equal labels leave a width above 0


class QuantileHead(MolformerHead):
    """MoLFormer's head, its last layer giving the lowest quantile and the steps from each to the next.

    A step is a softplus, so quantiles rise. The median is the prediction.
    Trained with ``objective.loss=quantile``.

    Args:
        hidden_size: of the trunk.
        num_outputs: targets.
        pooling: see `Pooling`.
        dropout: on what enters each GELU.
        levels: shares of the labels below each quantile, rising, 0.5 among them.
    """

    has_sigma = True

    def __init__(
        self,
        hidden_size: int,
        num_outputs: int,
        pooling: str,
        dropout: float,
        levels: Sequence[float],
    ):
        rising = list(levels) == sorted(set(levels)) and all(0 < level < 1 for level in levels)
        if not rising or MEDIAN not in levels or len(levels) < 2:
            raise UserError(
                f"head.levels={list(levels)}: give two or more rising numbers between 0 and 1, 0.5 "
                "among them, such as [0.05, 0.5, 0.95]"
            )
        self.numbers_per_output = len(levels)
        super().__init__(hidden_size, num_outputs, pooling, dropout)
        self.levels = list(levels)

    def prediction(self, numbers_BKP: Tensor) -> QuantilePrediction:
        numbers_BKP = numbers_BKP.double()  # a small step beside a large quantile is not lost
        lowest_BK1, steps_BKP = numbers_BKP[..., :1], F.softplus(numbers_BKP[..., 1:]) + SMALLEST
        quantiles_BKQ = lowest_BK1 + F.pad(steps_BKP, (1, 0)).cumsum(-1)
        return QuantilePrediction(
            quantiles_BKQ[..., self.levels.index(MEDIAN)], quantiles_BKQ, self.levels
        )
