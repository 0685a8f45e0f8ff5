"""Sequences as ProteinLM's Megatron code predicts them: classes, fluorescence, stability."""

from torch import Tensor

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.model.layers.dense_tanh import DenseTanh


class SequenceMegatron(Head):
    """y = V drop(tanh(W e)) of <cls>: the classifier of `pretrain/tasks/protein`.

    Args:
        hidden_size: of the trunk.
        num_outputs: targets or classes.
        pooling: see `Pooling`.
        dropout: after the tanh.
        init_std: of both weights; biases begin at zero.
    """

    def __init__(
        self, hidden_size: int, num_outputs: int, pooling: str, dropout: float, init_std: float
    ):
        super().__init__(pooling)
        self.layers = DenseTanh(hidden_size, hidden_size, num_outputs, dropout, init_std)

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        return Prediction(self.layers(pooled_BD))
