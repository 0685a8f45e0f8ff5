"""Batch normalisation that does not see padding."""

# C = channels, N = places that count

import torch.nn.functional as F
from torch import Tensor, nn

FEWEST = 2  # places that have a variance


class MaskedBatchNorm(nn.BatchNorm1d):
    """torch's own, of the places that count alone, channels last; the others become zero.

    In training, statistics are those of all places that count in the batch (Ioffe and Szegedy 2015). One place alone
    has no variance: it is normalised by the running statistics, which stay as they are.

    Args:
        num_features: channels.
        eps, momentum: as torch counts them: TensorFlow's momentum is one minus this.
    """

    def __init__(self, num_features: int, eps: float, momentum: float):
        super().__init__(num_features, eps, momentum)

    def forward(self, features: Tensor, valid: Tensor | None = None) -> Tensor:
        """Features (..., C), of which `valid` (...) count; null: all."""
        kept_NC = features.flatten(0, -2) if valid is None else features[valid]
        normed_NC = (
            super().forward(kept_NC) if len(kept_NC) >= FEWEST else self._by_running(kept_NC)
        )
        if valid is None:
            return normed_NC.view(features.shape)
        spread = normed_NC.new_zeros(features.shape)
        spread[valid] = normed_NC
        return spread

    def _by_running(self, kept_NC: Tensor) -> Tensor:
        return F.batch_norm(
            kept_NC, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
