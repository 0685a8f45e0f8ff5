"""Contacts as TAPE's second code predicts them."""

from torch import Tensor

from lit_seqlm.head.sites import PairHead, in_full
from lit_seqlm.model.layers.pairs import ProductDifference


class ContactTapeTorch(PairHead):
    """W drop([h_i * h_j, h_i - h_j]), symmetric: `PairwiseContactPredictionHead` of `modeling_utils.py`.

    The symmetric answer has no difference in it: it changes sign with the order. Dropout in training, drawn for
    each order by itself, is all that reads it.

    Args:
        hidden_size: of the trunk.
        num_outputs: 2.
        dropout: on the features of a pair.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float):
        super().__init__(num_outputs)
        self.features = ProductDifference(hidden_size, num_outputs, dropout)

    def scores(self, hidden_BTD: Tensor, valid_BTT: Tensor | None) -> Tensor:
        return in_full(self.features, hidden_BTD)
