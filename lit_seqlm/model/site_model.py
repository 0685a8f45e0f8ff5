"""A trunk and a head that gives every site the logits of its classes."""

# B = sequences, T = tokens, C = classes

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.model.property import trunk_of

SITES = ("residue", "pair", "chain")
USUAL = {
    "residue": "residue_tape_torch",
    "pair": "contact_tape_torch",
    "chain": "sequence_tape2019",
}


class SiteModel(nn.Module):
    """Sites are residues, pairs of residues or whole chains; what they are of is the head's.

    Args:
        trunk: called with tokens and which of them are no padding, gives hidden states (B, T, D).
        head: gives logits (B, T, C), (B, T, T, C), or a prediction for each sequence whose mean is (B, C).
        frozen: the trunk is no part of what learns: it stays in eval mode, without gradients.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, frozen: bool):
        super().__init__()
        self.trunk, self.head, self.frozen = trunk, head, frozen
        if frozen:
            trunk.requires_grad_(False).eval()

    @classmethod
    def on(
        cls,
        encoder: Any,
        head: Callable[..., Any],
        site: str,
        num_classes: int,
        frozen: bool = False,
    ) -> "SiteModel":
        """A new head on the trunk of an encoder.

        Args:
            head: called with `hidden_size` and `num_outputs`.
            site: what the labels are of.

        Raises:
            UserError: if the model has no trunk, or the head is for other sites.
        """
        trunk = trunk_of(encoder)
        made = head(hidden_size=trunk.hidden_size, num_outputs=num_classes)
        theirs = "chain" if isinstance(made, Head) else getattr(made, "site", None)
        if theirs != site:
            raise UserError(
                f"these labels are of {site}s, and {type(made).__name__} is a head for {theirs}s: "
                f"say head={USUAL[site]}."
            )
        if getattr(made, "has_sigma", False):
            raise UserError(
                f"these labels are classes, and {type(made).__name__} predicts numbers with a standard deviation. "
                "Say head=linear."
            )
        return cls(trunk, made, frozen)

    def train(self, mode: bool = True) -> "SiteModel":
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, C), (B, T, T, C) or (B, C)."""
        return self.logits(self.trunk(tokens_BT, valid_BT), valid_BT)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """The same of hidden states that are known already."""
        found = self.head(hidden_BTD, valid_BT)
        return found.mean_BK if isinstance(found, Prediction) else found
