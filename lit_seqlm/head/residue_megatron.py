"""Classes of residues as ProteinLM's Megatron code predicts them."""

from torch import Tensor

from lit_seqlm.head.sites import ResidueHead
from lit_seqlm.model.layers.dense_tanh import DenseTanh


class ResidueMegatron(ResidueHead):
    """y = V drop(tanh(W h)): `pretrain/megatron/model/token_classification.py`.

    The official file gives its first layer ``hidden_dropout`` outputs for ``hidden_size``; read as the latter.

    Args:
        hidden_size: of the trunk.
        num_outputs: classes.
        dropout: after the tanh.
        init_std: of both weights; biases begin at zero.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float, init_std: float):
        super().__init__()
        self.layers = DenseTanh(hidden_size, hidden_size, num_outputs, dropout, init_std)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        return self.layers(hidden_BTD)
