"""Dropout as recurrent language models use it: masks locked over time, and whole words dropped."""

# B = sequences, T = tokens, D = hidden size, V = vocabulary

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LockedDropout(nn.Module):
    """One mask per sequence, the same at every time step (Gal and Ghahramani 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return hidden_BTD
        return hidden_BTD * _mask(hidden_BTD[:, :1], self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class DroppedEmbedding(nn.Embedding):
    """Input lookup that drops whole words, the same for all positions of a segment.

    Merity et al. 2018, section 4.3; the noise is in the code of Wang et al. 2019. The matrix itself
    stays whole, so a tied output embedding never sees the mask.
    """

    def __init__(self, vocab_size: int, size: int, rate: float = 0.0, noise_std: float = 0.0):
        super().__init__(vocab_size, size)
        self.rate, self.noise_std = rate, noise_std
        nn.init.uniform_(self.weight, -0.1, 0.1)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        embedded_BTD = F.embedding(tokens_BT, self.weight)
        if not self.training:
            return embedded_BTD
        if self.rate:
            mask_V1 = _mask(self.weight[:, :1], self.rate)
            embedded_BTD = embedded_BTD * F.embedding(tokens_BT, mask_V1)
        if self.noise_std:
            embedded_BTD = embedded_BTD + torch.randn_like(embedded_BTD) * self.noise_std
        return embedded_BTD


def drop_weight(weight: Tensor, rate: float, training: bool) -> Tensor:
    """DropConnect: one mask on a matrix for the whole segment (Merity et al. 2018, section 2)."""
    return F.dropout(weight, rate, training) if rate else weight


def _mask(like: Tensor, rate: float) -> Tensor:
    """Zero with probability `rate`, else 1 / (1 - rate)."""
    return torch.empty_like(like).bernoulli_(1 - rate).div_(1 - rate)
