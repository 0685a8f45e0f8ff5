"""Contacts as ProteinLM's Megatron code predicts them, the path added for the model of 3B."""

from torch import Tensor

from lit_seqlm.head.sites import PairHead, in_full
from lit_seqlm.model.layers.dense_tanh import DenseTanh


class ContactMegatron(PairHead):
    """V drop(tanh(W [h_i, h_j])), symmetric: `pretrain/megatron/model/token_pair_classification.py`.

    W [h_i, h_j] is W_a h_i + W_b h_j, so the concatenation (T, T, 2D) is never made.

    Args:
        hidden_size: of the trunk.
        num_outputs: 2.
        dropout: after the tanh.
        init_std: of both weights; biases begin at zero.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float, init_std: float):
        super().__init__(num_outputs)
        self.layers = DenseTanh(2 * hidden_size, hidden_size, num_outputs, dropout, init_std)

    def scores(self, hidden_BTD: Tensor, valid_BTT: Tensor | None) -> Tensor:
        first_DD, second_DD = self.layers.dense.weight.chunk(2, dim=1)
        first_BTD = hidden_BTD @ first_DD.T + self.layers.dense.bias
        second_BTD = hidden_BTD @ second_DD.T
        inner_BTTD = (first_BTD[:, :, None] + second_BTD[:, None]).tanh()
        return in_full(self.layers.out, self.layers.dropout(inner_BTTD))
