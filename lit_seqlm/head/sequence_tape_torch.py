"""Sequences as TAPE's second code predicts them: classes, fluorescence, stability."""

from torch import Tensor, nn

from lit_seqlm.head.prediction import Prediction
from lit_seqlm.head.sequence_plm_tape import SequencePlmTape


class SequenceTapeTorch(SequencePlmTape):
    """y = V drop(relu(W tanh(P e))) of <cls>: BERT's pooler, then `SimpleMLP` of `tape/models/modeling_utils.py`.

    Masked language modelling does not train the pooler, so it begins here.

    Args:
        The same as `SequencePlmTape`.
    """

    def __init__(
        self, hidden_size: int, num_outputs: int, pooling: str, inner_size: int, dropout: float
    ):
        super().__init__(hidden_size, num_outputs, pooling, inner_size, dropout)
        self.pooler = nn.Linear(hidden_size, hidden_size)

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        return super().from_pooled(self.pooler(pooled_BD).tanh())
