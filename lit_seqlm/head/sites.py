"""What heads on residues and on pairs of them share."""

# B = sequences, T = tokens, D = hidden size, C = classes

from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.pairs import symmetric, valid_pairs

CONTACT_CLASSES = 2  # apart, contact


class ResidueHead(nn.Module):
    """Logits of every token; padding is zero before a subclass's `logits` sees it.

    Ends of a sequence are tokens like any other, and their logits are nobody's.
    """

    site: ClassVar = "residue"

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """(B, T, C)."""
        return self.logits(blank(hidden_BTD, valid_BT), valid_BT)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        raise NotImplementedError


class PairHead(nn.Module):
    """Logits of every pair of tokens, the same for both of its orders; a subclass writes `scores`.

    The last layer works in full precision: bfloat16 has three digits, and the strongest contacts would tie.
    """

    site: ClassVar = "pair"

    def __init__(self, num_outputs: int):
        super().__init__()
        if num_outputs != CONTACT_CLASSES:
            raise UserError(
                f"{type(self).__name__} tells contacts from what is apart, {CONTACT_CLASSES} classes; the data has "
                f"{num_outputs}. Choose data of contacts, such as data=contacts_pdb."
            )

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """(B, T, T, C)."""
        return symmetric(self.scores(blank(hidden_BTD, valid_BT), valid_pairs(valid_BT)))

    def scores(self, hidden_BTD: Tensor, valid_BTT: Tensor | None) -> Tensor:
        raise NotImplementedError


def blank(hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
    """The same with zeros on padding, whatever stood there."""
    return hidden_BTD if valid_BT is None else hidden_BTD.masked_fill(~valid_BT[..., None], 0.0)


def in_full(layer: nn.Module, features: Tensor) -> Tensor:
    """A layer outside of autocast."""
    with torch.autocast(features.device.type, enabled=False):
        return layer(features.to(next(layer.parameters()).dtype))
