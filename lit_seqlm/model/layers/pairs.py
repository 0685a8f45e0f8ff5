"""Pairs of tokens: the valid ones, a symmetric answer, and what dropout leaves of their features."""

# B = sequences, T = tokens, D = hidden size, K = outputs

import torch
from torch import Tensor, nn


def valid_pairs(valid_BT: Tensor | None) -> Tensor | None:
    """Pairs of tokens that are no padding, bool (B, T, T)."""
    return None if valid_BT is None else valid_BT[:, :, None] & valid_BT[:, None]


def symmetric(scores_BTTK: Tensor) -> Tensor:
    """The mean of both orders of a pair, in float32 or wider; equal for both to the last bit."""
    wide_BTTK = scores_BTTK.to(torch.promote_types(scores_BTTK.dtype, torch.float32))
    return (wide_BTTK + wide_BTTK.transpose(1, 2)) / 2


class ProductDifference(nn.Module):
    """W drop([h_i * h_j, h_i - h_j]) + b for all pairs of tokens.

    Dropout draws anew for each pair, so that training holds all features of all pairs (T, T, 2D). Without dropout
    nothing of that size is made: the products are a bilinear form, and W (h_i - h_j) = W h_i - W h_j.

    Args:
        hidden_size: of a token.
        num_outputs: of a pair.
        dropout: on the features.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.linear = nn.Linear(2 * hidden_size, num_outputs)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, T, K)."""
        if self.training and self.dropout > 0:
            left_BTTD, right_BTTD = hidden_BTD[:, :, None], hidden_BTD[:, None]
            features = torch.cat([left_BTTD * right_BTTD, left_BTTD - right_BTTD], -1)
            return self.linear(nn.functional.dropout(features, self.dropout))
        product_KD, difference_KD = self.linear.weight.chunk(2, dim=1)
        scaled_BKTD = hidden_BTD[:, None] * product_KD[:, None]
        products_BKTT = scaled_BKTD @ hidden_BTD[:, None].transpose(-1, -2)
        single_BTK = nn.functional.linear(hidden_BTD, difference_KD)
        differences_BTTK = single_BTK[:, :, None] - single_BTK[:, None]
        return products_BKTT.permute(0, 2, 3, 1) + differences_BTTK + self.linear.bias
