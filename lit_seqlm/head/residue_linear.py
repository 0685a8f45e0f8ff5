"""One linear layer on every residue: what its state tells without its neighbours."""

from torch import Tensor, nn

from lit_seqlm.head.sites import ResidueHead


class ResidueLinear(ResidueHead):
    """y = W drop(h) + b.

    Args:
        hidden_size: of the trunk.
        num_outputs: classes.
        dropout: on the states.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden_size, num_outputs)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        return self.out(self.dropout(hidden_BTD))
