"""Causal self-attention, with or without a memory of the tokens before."""

# B = sequences, T = new tokens, S = all tokens so far, L = room of a cache
# D = hidden size, H = heads, F = size of a head

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.positions import Rotation


class Context:
    """What one layer's attention sees before the tokens at hand: here, nothing.

    One with a memory gives back from `append` the keys and values of all tokens, the new ones last.
    """

    length = 0

    def append(self, keys_BHTF: Tensor, values_BHTF: Tensor) -> tuple[Tensor, Tensor]:
        return keys_BHTF, values_BHTF


class KeyValueCache(Context):
    """Keys and values of one layer, in two buffers (B, H, L, F) made once; for inference only."""

    def __init__(self, keys_BHLF: Tensor, values_BHLF: Tensor):
        self.keys_BHLF, self.values_BHLF = keys_BHLF, values_BHLF
        self.length = 0

    def append(self, keys_BHTF: Tensor, values_BHTF: Tensor) -> tuple[Tensor, Tensor]:
        start, end = self.length, self.length + keys_BHTF.size(2)
        if keys_BHTF.requires_grad:
            raise ValueError(
                "a key-value cache keeps no gradients: call the model under torch.no_grad()"
            )
        if end > self.keys_BHLF.size(2):
            raise ValueError(
                f"the key-value cache has room for {self.keys_BHLF.size(2)} tokens, not {end}: "
                "make it with a larger max_len"
            )
        self.keys_BHLF[:, :, start:end] = keys_BHTF
        self.values_BHLF[:, :, start:end] = values_BHTF
        self.length = end
        return self.keys_BHLF[:, :, :end], self.values_BHLF[:, :, :end]


class CausalSelfAttention(nn.Module):
    """softmax(q k / sqrt(F)) v over a token and all before it (Vaswani et al. 2017, section 3.2).

    Args:
        dropout: on the attention weights.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        if hidden_size % num_heads:
            raise UserError(
                f"model.hidden_size={hidden_size} is not a multiple of model.num_heads={num_heads}"
            )
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_BTD: Tensor, rotation: Rotation, context: Context) -> Tensor:
        qkv = self.qkv(hidden_BTD).unflatten(-1, (3, self.num_heads, -1))
        queries_BHTF, keys_BHTF, values_BHTF = qkv.permute(2, 0, 3, 1, 4)
        keys_BHSF, values_BHSF = context.append(rotation(keys_BHTF), values_BHTF)
        dropout = self.dropout if self.training else 0.0
        mixed_BHTF = causal_attention(rotation(queries_BHTF), keys_BHSF, values_BHSF, dropout)
        return self.out(mixed_BHTF.transpose(1, 2).flatten(2))


def causal_attention(
    queries_BHTF: Tensor, keys_BHSF: Tensor, values_BHSF: Tensor, dropout: float
) -> Tensor:
    """Attention of the last T of S tokens, each to itself and all before it."""
    num_queries, num_keys = queries_BHTF.size(2), keys_BHSF.size(2)
    attend = F.scaled_dot_product_attention
    if num_queries == num_keys:
        return attend(queries_BHTF, keys_BHSF, values_BHSF, dropout_p=dropout, is_causal=True)
    mask = None if num_queries == 1 else causal_lower_right(num_queries, num_keys)
    return attend(queries_BHTF, keys_BHSF, values_BHSF, attn_mask=mask, dropout_p=dropout)
