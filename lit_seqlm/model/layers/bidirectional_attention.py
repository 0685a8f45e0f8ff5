"""Self-attention that sees the whole sequence: what all kinds of it share, and softmax.

Tokens come first, (T, B, D): heads are then (T, B * H, F), which products over tokens and products
over heads both read where they are, without a copy.
"""

# B = sequences, T = queries, S = keys, D = hidden size, H = heads, N = B * H, F = size of a head

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.half_rotary import NoRotation


class BidirectionalAttention(nn.Module):
    """sum_n w_mn v_n at every token m; a subclass says what the weights are.

    A sequence without any key that counts gets zeros.
    """

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        if hidden_size % num_heads:
            raise UserError(
                f"model.hidden_size={hidden_size} is not a multiple of model.num_heads={num_heads}"
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_TBD: Tensor, rotation: NoRotation, valid_BT: Tensor | None) -> Tensor:
        mixed_TNF = self.mix(*self.project(hidden_TBD), rotation, valid_BT)
        return self.out(mixed_TNF.reshape(hidden_TBD.shape))

    def forward_with_maps(
        self, hidden_TBD: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives without dropout on the weights, and the weights (B, H, T, T)."""
        queries_TNF, keys_TNF, values_TNF = self.project(hidden_TBD)
        weights_NTT = self.weights(queries_TNF, keys_TNF, rotation, valid_BT)
        mixed_TNF = average(weights_NTT.to(values_TNF.dtype), values_TNF)
        maps_BHTT = weights_NTT.unflatten(0, (-1, self.num_heads))
        return self.out(mixed_TNF.reshape(hidden_TBD.shape)), maps_BHTT

    def project(self, hidden_TBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (T, N, F) each: three products, as parts of one would need copies."""
        num_tokens, num_rows, hidden_size = hidden_TBD.shape
        shape = (num_tokens, num_rows * self.num_heads, hidden_size // self.num_heads)
        parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        queries, keys, values = (F.linear(hidden_TBD, *part).view(shape) for part in parts)
        return queries, keys, values

    def mix(
        self,
        queries_TNF: Tensor,
        keys_TNF: Tensor,
        values_TNF: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
    ) -> Tensor:
        """The weighted sums of values, (T, N, F)."""
        raise NotImplementedError

    def weights(
        self, queries_TNF: Tensor, keys_TNF: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> Tensor:
        """Weights (N, T, T) whose rows sum to one over the keys that count; in float32 at least."""
        raise NotImplementedError


class SoftmaxAttention(BidirectionalAttention):
    """softmax(q k / sqrt(F)) v over the keys that count (Vaswani et al. 2017, section 3.2).

    Args:
        dropout: on the attention weights.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__(hidden_size, num_heads)
        self.dropout = dropout

    def mix(
        self,
        queries_TNF: Tensor,
        keys_TNF: Tensor,
        values_TNF: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
    ) -> Tensor:
        turned = rotation.heads(queries_TNF), rotation.heads(keys_TNF), values_TNF
        heads = [part.unflatten(1, (-1, self.num_heads)).permute(1, 2, 0, 3) for part in turned]
        mask = None if valid_BT is None else valid_BT[:, None, None]
        mixed_BHTF = F.scaled_dot_product_attention(
            *heads, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return mixed_BHTF.permute(2, 0, 1, 3).flatten(1, 2)

    def weights(
        self, queries_TNF: Tensor, keys_TNF: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> Tensor:
        queries_NTF = rotation.heads(queries_TNF).transpose(0, 1)
        keys_NFT = rotation.heads(keys_TNF).permute(1, 2, 0)
        full = torch.promote_types(queries_NTF.dtype, torch.float32)
        scores_NTT = torch.bmm(queries_NTF, keys_NFT).to(full) / math.sqrt(queries_NTF.size(-1))
        if valid_BT is None:
            return scores_NTT.softmax(-1)
        hidden_N1T = ~valid_BT.repeat_interleave(self.num_heads, 0)[:, None]
        weights_NTT = scores_NTT.masked_fill(hidden_N1T, -torch.inf).softmax(-1)
        return weights_NTT.masked_fill(hidden_N1T, 0.0)  # of a row without keys: not a number


def average(weights_NTS: Tensor, values_SNF: Tensor) -> Tensor:
    """sum_s w_ts v_s for every head, (T, N, F)."""
    return torch.bmm(weights_NTS, values_SNF.transpose(0, 1)).transpose(0, 1)
