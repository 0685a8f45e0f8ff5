"""Sequences as TAPE's first code predicts them: classes, fluorescence, stability (Rao et al. 2019)."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.model.layers.attention_pooling import AttentionPooling


class SequenceTape2019(Head):
    """y = V drop(relu(W LN(e))) of e, a mean of the tokens whose weights are learnt.

    `tape/task_models/GlobalVectorPredictor.py`, whose dense layers are weight-normalised.

    Args:
        hidden_size: of the trunk.
        num_outputs: targets or classes.
        inner_size: of the hidden layer.
        dropout: after the ReLU.
        attention_dropout: see `AttentionPooling`.
    """

    def __init__(
        self,
        hidden_size: int,
        num_outputs: int,
        inner_size: int,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__(AttentionPooling(hidden_size, attention_dropout))
        self.norm = nn.LayerNorm(hidden_size)
        self.dense = weight_norm(nn.Linear(hidden_size, inner_size))
        self.dropout = nn.Dropout(dropout)
        self.out = weight_norm(nn.Linear(inner_size, num_outputs))

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        inner_BD = self.dense(self.norm(pooled_BD)).relu()
        return Prediction(self.out(self.dropout(inner_BD)))
