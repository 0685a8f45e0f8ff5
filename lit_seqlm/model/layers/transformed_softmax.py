"""A softmax behind one more layer: the output embedding of masked language models."""

# N = positions that count, D = hidden size, V = vocabulary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.model.layers.softmax import OneSoftmax


class TransformedSoftmax(OneSoftmax):
    """softmax(W norm(gelu(A h + a)) + b): the prediction head of BERT (Devlin et al. 2019).

    Tied, W is the input embedding and b is learned; untied, as in MoLFormer, W is its own and there is
    no b. The transform runs on the positions that count alone: with 15 % of them masked, the rest is
    not computed.

    Args:
        eps: under the root of the norm.
        tied_to: the input embedding; null for a matrix of its own.
    """

    def __init__(self, vocab_size: int, size: int, eps: float, tied_to: nn.Embedding | None = None):
        super().__init__()
        self.transform = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size, eps)
        if tied_to is not None:
            self.weight = tied_to.weight
            self.bias = nn.Parameter(torch.zeros(vocab_size))
            return
        self.weight = nn.Parameter(torch.empty(vocab_size, size))
        self.register_buffer("bias", torch.zeros(vocab_size), persistent=False)
        nn.init.normal_(self.weight, std=0.02)

    def transformed(self, hidden_ND: Tensor) -> Tensor:
        return self.norm(F.gelu(self.transform(hidden_ND)))
