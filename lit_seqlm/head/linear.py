"""One linear layer: what a frozen trunk's states tell without more."""

# B = sequences, D = hidden size

from torch import Tensor, nn

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction


class LinearHead(Head):
    """y = W drop(e) + b.

    Args:
        hidden_size: of the trunk.
        num_outputs: targets.
        pooling: see `Pooling`.
        dropout: on the pooled state.
    """

    def __init__(self, hidden_size: int, num_outputs: int, pooling: str, dropout: float):
        super().__init__(pooling)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, num_outputs)

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        return Prediction(self.out(self.dropout(pooled_BD)))
