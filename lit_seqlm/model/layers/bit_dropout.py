"""Dropout that is cheap on CPUs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


class BitDropout(nn.Dropout):
    """Dropout from 16 random bits an entry: torch's own draws one number for each, one by one.

    Four entries share a 64-bit random number, which makes the mask about five times as fast on a
    CPU; the rate is rounded to a multiple of 2^-16, and the scale is exact for it. On other
    devices it is torch's dropout.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return hidden
        if hidden.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(hidden, self.p)
        return hidden * bit_mask(hidden, self.p)


def bit_mask(like: Tensor, rate: float) -> Tensor:
    """Zero with probability `rate`, else 1 / (1 - rate); the shape and type of `like`."""
    num_dropped = round(rate * LEVELS)
    if num_dropped == LEVELS:
        return torch.zeros_like(like)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    kept = bits >= num_dropped - LEVELS // 2
    return kept.to(like.dtype).mul_(LEVELS / (LEVELS - num_dropped))
