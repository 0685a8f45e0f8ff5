"""What all heads on whole sequences share: pooling, and arithmetic in full precision."""

# B = sequences, T = tokens, D = hidden size

from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_seqlm.head.prediction import Prediction
from lit_seqlm.model.layers.pooling import Pooling


class Head(nn.Module):
    """Pool the tokens, then predict from the pooled state. A subclass writes `from_pooled`.

    A head costs next to nothing and bfloat16 has three digits, so it is left out of autocast.

    Args:
        pooling: how a sequence's tokens become one vector: see `Pooling`; or a module that does it, and may learn.

    Attributes:
        has_sigma: whether a prediction tells its own standard deviation.
    """

    has_sigma: ClassVar = False

    def __init__(self, pooling: str | nn.Module):
        super().__init__()
        self.pooling = Pooling(pooling) if isinstance(pooling, str) else pooling

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Prediction:
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            pooled_BD = self.pooling(hidden_BTD, valid_BT)
            return self.from_pooled(pooled_BD.to(next(self.parameters()).dtype))

    @property
    def pools_by_learning(self) -> bool:
        """Whether pooled states change as the head learns: then they cannot be computed once."""
        return any(True for _ in self.pooling.parameters())

    def from_pooled(self, pooled_BD: Tensor) -> Prediction:
        """The prediction from a pooled state: also what a frozen trunk's stored states are fed to."""
        raise NotImplementedError
