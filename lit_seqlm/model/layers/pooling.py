"""One vector for each sequence."""

# B = sequences, T = tokens, D = hidden size

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError

KINDS = ("mean", "mean_inner", "first")
FEWEST = 1e-9  # tokens: what an empty mean is divided by, so that it is zero


class Pooling(nn.Module):
    """A sequence's vector from those of its tokens, summed in float32 whatever they come in.

    Args:
        kind: ``mean`` of all tokens that are no padding, begin and end included, as in MoLFormer
            (Ross et al. 2022); ``mean_inner`` leaves out the first and the last of them, which are
            the begin and end of a sentence, a protein or a molecule; ``first`` takes the first alone.
    """

    def __init__(self, kind: str):
        super().__init__()
        if kind not in KINDS:
            raise UserError(f"head.pooling={kind}: choose one of {', '.join(KINDS)}")
        self.kind = kind

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Pooled states (B, D), float32 or wider; zero where no token is left to take the mean of."""
        exact = torch.promote_types(hidden_BTD.dtype, torch.float32)
        if self.kind == "first":
            return hidden_BTD[:, 0].to(exact)
        if valid_BT is None and self.kind == "mean":
            return hidden_BTD.mean(1, dtype=exact)
        if valid_BT is None:
            valid_BT = hidden_BTD.new_ones(hidden_BTD.shape[:2], dtype=torch.bool)
        share_BT = self._kept(valid_BT).to(exact)
        share_BT = share_BT / share_BT.sum(1, keepdim=True).clamp(min=FEWEST)
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            return torch.bmm(share_BT[:, None], hidden_BTD.to(exact)).squeeze(1)

    def _kept(self, valid_BT: Tensor) -> Tensor:
        """The tokens that enter the mean; padding is on the right."""
        if self.kind == "mean":
            return valid_BT
        positions_T = torch.arange(valid_BT.size(1), device=valid_BT.device)
        last_B1 = valid_BT.sum(1, keepdim=True) - 1
        return (positions_T > 0) & (positions_T < last_B1)

    def extra_repr(self) -> str:
        return self.kind
