"""One hidden layer of any width, without skips."""

# B = sequences, D = hidden size

import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction


class MlpHead(Head):
    """y = W2 drop(gelu(W1 e)).

    Args:
        hidden_size: of the trunk.
        num_outputs: targets.
        pooling: see `Pooling`.
        inner_size: of the hidden layer.
        dropout: after the activation.
    """

    def __init__(
        self, hidden_size: int, num_outputs: int, pooling: str, inner_size: int, dropout: float
    ):
        super().__init__(pooling)
        self.dense = nn.Linear(hidden_size, inner_size)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(inner_size, num_outputs)

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        return Prediction(self.out(self.dropout(F.gelu(self.dense(pooled_BD)))))
