"""MoLFormer's head: two dense layers with skips."""

# B = sequences, D = hidden size, K = targets, P = numbers for each target

import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction


class MolformerHead(Head):
    """h1 = gelu(drop(W1 e)) + e, h2 = gelu(drop(W2 h1)) + h1, y = W h2 (Ross et al. 2022, official code).

    Args:
        hidden_size: of the trunk.
        num_outputs: targets.
        pooling: see `Pooling`.
        dropout: on what enters each GELU.
    """

    numbers_per_output = 1

    def __init__(self, hidden_size: int, num_outputs: int, pooling: str, dropout: float):
        super().__init__(pooling)
        self.dense1 = nn.Linear(hidden_size, hidden_size)
        self.dense2 = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_outputs * self.numbers_per_output)
        self.dropout = nn.Dropout(dropout)

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        for dense in (self.dense1, self.dense2):
            pooled_BD = F.gelu(self.dropout(dense(pooled_BD))) + pooled_BD
        return self.prediction(self.out(pooled_BD).unflatten(-1, (-1, self.numbers_per_output)))

    def prediction(self, numbers_BKP: Tensor) -> Prediction:
        """What the last layer's numbers mean; a subclass with more of them says so here."""
        return Prediction(numbers_BKP.squeeze(-1))
