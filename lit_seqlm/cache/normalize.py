"""What is done to a state before it is compared with others."""

# N = states, D = hidden size

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError

WORDS = ("none", "l2", "layer_norm", "pca")
PCA_TOKENS = 50_000  # training states from which the axes are taken


class Normalizer:
    """none | l2: to unit length | layer_norm: mean 0 and variance 1 over dimensions | pca: whitened.

    The axes of ``pca`` come from training states, never from the stream that is scored.
    """

    def __init__(self, how: str):
        if how not in WORDS:
            raise UserError(f"cache.normalize={how}: choose one of {', '.join(WORDS)}.")
        self.how = how
        self.mean_D: Tensor | None = None
        self.axes_DD: Tensor | None = None

    @property
    def training_tokens(self) -> int:
        return PCA_TOKENS if self.how == "pca" else 0

    def learn(self, states: Iterable[tuple[Tensor, Tensor]]) -> None:
        """`fit` to all of some training states, each given with the word after it."""
        self.fit(torch.cat([hidden_ND.float() for hidden_ND, _ in states]))

    def fit(self, hidden_ND: Tensor) -> None:
        """Mean, principal axes and their scales of some training states."""
        mean_D = hidden_ND.mean(0)
        _, scale_D, axes_DD = torch.linalg.svd(hidden_ND - mean_D, full_matrices=False)
        deviation_D = scale_D / max(len(hidden_ND) - 1, 1) ** 0.5
        self.mean_D = mean_D
        self.axes_DD = axes_DD.T / deviation_D.clamp(min=1e-6 * float(deviation_D.max()))

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        hidden_ND = hidden_ND.float()
        if self.how == "l2":
            return F.normalize(hidden_ND, dim=-1)
        if self.how == "layer_norm":
            return F.layer_norm(hidden_ND, hidden_ND.shape[-1:])
        if self.how == "pca":
            assert self.mean_D is not None, "a pca normalizer is fitted before it is used"
            assert self.axes_DD is not None
            return (hidden_ND - self.mean_D.to(hidden_ND)) @ self.axes_DD.to(hidden_ND)
        return hidden_ND

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean_D, "axes": self.axes_DD}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean_D, self.axes_DD = state["mean"], state["axes"]
