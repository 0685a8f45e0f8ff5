"""A softmax behind one more layer: the output embedding of masked language models."""

# B = sequences, T = tokens, N = positions that count, D = hidden size, V = vocabulary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.model.layers.margin import Margin, dense_nll, select


class TransformedSoftmax(nn.Module):
    """softmax(W norm(gelu(A h + a))), with a matrix W of its own and no bias.

    The prediction head of BERT (Devlin et al. 2019) as MoLFormer uses it, untied. The transform
    runs on the positions that count alone: with 15 % of them masked, the rest is not computed.
    The interface is that of `lit_seqlm.model.layers.softmax`.

    Args:
        eps: under the root of the norm.
    """

    bias: Tensor

    def __init__(self, vocab_size: int, size: int, eps: float):
        super().__init__()
        self.transform = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size, eps)
        self.weight = nn.Parameter(torch.empty(vocab_size, size))
        self.register_buffer("bias", torch.zeros(vocab_size), persistent=False)
        nn.init.normal_(self.weight, std=0.02)

    def nll(
        self,
        hidden_BTD: Tensor,
        targets_BT: Tensor,
        mask_BT: Tensor | None,
        regularizer: Margin,
        label_smoothing: float = 0.0,
        path: str = "fused",
    ) -> tuple[Tensor, Tensor]:
        hidden_ND = self.transformed(select(hidden_BTD, mask_BT))
        targets_N = select(targets_BT, mask_BT)
        return dense_nll(
            hidden_ND, self.weight, self.bias, targets_N, regularizer, label_smoothing, path
        )

    def log_prob(self, hidden_ND: Tensor) -> Tensor:
        return F.linear(self.transformed(hidden_ND), self.weight).log_softmax(-1)

    def transformed(self, hidden_ND: Tensor) -> Tensor:
        """What the matrix W reads."""
        return self.norm(F.gelu(self.transform(hidden_ND)))
