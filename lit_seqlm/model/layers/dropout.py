"""Dropout as recurrent language models use it: masks that stay the same over time, and whole words dropped."""

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
        mask = torch.full_like(hidden_BTD[:, :1], 1 - self.rate).bernoulli_().div_(1 - self.rate)
        return hidden_BTD * mask

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


class DroppedEmbedding(nn.Embedding):
    """Input lookup that drops whole words, the same ones for all positions of a segment (AWD-LSTM, section 4.3).

    The matrix itself stays whole, so a tied output embedding never sees the mask.
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
            mask_V = torch.full_like(self.weight[:, 0], 1 - self.rate).bernoulli_().div_(1 - self.rate)
            embedded_BTD = embedded_BTD * mask_V[tokens_BT].unsqueeze(-1)
        if self.noise_std:  # Wang et al. 2019's code: Gaussian noise on the input embeddings
            embedded_BTD = embedded_BTD + torch.randn_like(embedded_BTD) * self.noise_std
        return embedded_BTD


def drop_weight(weight: Tensor, rate: float, training: bool) -> Tensor:
    """DropConnect on a recurrent matrix: one mask for the whole segment (Merity et al. 2018, section 2)."""
    return F.dropout(weight, rate, training) if rate else weight
