"""Sequences as ProteinLM's `tape/` predicts them: classes, fluorescence, stability."""

from torch import Tensor, nn

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.model.layers.whole_norm import whole_norm


class SequencePlmTape(Head):
    """y = V drop(relu(W e)) of <cls> as it is: `SimpleMLP` of `tape/tape/models/modeling_utils.py`.

    Each layer has one norm for the whole of its weight (torch's ``dim=None``).

    Args:
        hidden_size: of the trunk.
        num_outputs: targets or classes.
        pooling: see `Pooling`.
        inner_size: of the hidden layer.
        dropout: after the ReLU.
    """

    def __init__(
        self, hidden_size: int, num_outputs: int, pooling: str, inner_size: int, dropout: float
    ):
        super().__init__(pooling)
        self.dense = whole_norm(nn.Linear(hidden_size, inner_size))
        self.dropout = nn.Dropout(dropout)
        self.out = whole_norm(nn.Linear(inner_size, num_outputs))

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        return Prediction(self.out(self.dropout(self.dense(pooled_BD).relu())))
