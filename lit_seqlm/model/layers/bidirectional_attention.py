"""Self-attention that sees the whole sequence: what all kinds of it share, and softmax.

Tokens come first, (T, B, D), so that one product serves all heads at a position.
"""

# B = sequences, T = tokens, D = hidden size, C = 2: queries, keys; H = heads, N = B * H, F = size of a head

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.by_head import by_head
from lit_seqlm.model.layers.half_rotary import NoRotation
from lit_seqlm.model.layers.packing import Packing, Run


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

    def forward(
        self,
        hidden_TBD: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """With `packing`, B is 1 and T are the tokens of all its sequences; `valid_BT` is then not looked at."""
        if packing is not None:
            return self._packed(hidden_TBD, rotation, packing)
        paired_TBCHF, values_NTF = self.project(hidden_TBD)
        return self._out(self.mix(paired_TBCHF, values_NTF, rotation, valid_BT))

    def forward_with_maps(
        self, hidden_TBD: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives without dropout on the weights, and the weights (B, H, T, T)."""
        paired_TBCHF, values_NTF = self.project(hidden_TBD)
        weights_NTT = self.weights(paired_TBCHF, rotation, valid_BT)
        mixed_NTF = torch.bmm(weights_NTT.to(values_NTF.dtype), values_NTF)
        return self._out(mixed_NTF), weights_NTT.unflatten(0, (-1, self.num_heads))

    def project(self, hidden_TBD: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as one product of theirs leaves them, and values by head."""
        size = hidden_TBD.size(-1)
        weight_pair, weight_values = self.qkv.weight.split([2 * size, size])
        bias_pair, bias_values = self.qkv.bias.split([2 * size, size])
        paired_TBX = F.linear(hidden_TBD, weight_pair, bias_pair)
        values_TBHF = F.linear(hidden_TBD, weight_values, bias_values).unflatten(
            -1, (self.num_heads, -1)
        )
        paired_TBCHF = paired_TBX.unflatten(-1, (2, self.num_heads, -1))
        return paired_TBCHF, values_TBHF.permute(1, 2, 0, 3).flatten(0, 1)

    def mix(
        self,
        paired_TBCHF: Tensor,
        values_NTF: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
    ) -> Tensor:
        """The weighted sums of values, (N, T, F)."""
        raise NotImplementedError

    def weights(
        self, paired_TBCHF: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> Tensor:
        """Weights (N, T, T) whose rows sum to one over the keys that count; in float32 at least."""
        raise NotImplementedError

    def _packed(self, hidden_TBD: Tensor, rotation: NoRotation, packing: Packing) -> Tensor:
        """Every run of sequences of one length as the batch that it is."""
        paired_TBCHF, values_NTF = self.project(hidden_TBD)
        sizes = [run.num * run.length for run in packing.runs]
        paired = paired_TBCHF[:, 0].split(sizes)
        values = values_NTF.transpose(0, 1).split(sizes)
        parts = []
        for run, pair, value in zip(packing.runs, paired, values, strict=True):
            values_NTF = _as_batch(value, run).permute(1, 2, 0, 3).flatten(0, 1)
            rotated = rotation.first(run.length)
            mixed_NTF = self.mix(_as_batch(pair, run), values_NTF, rotated, None)
            mixed_BHTF = mixed_NTF.unflatten(0, (-1, self.num_heads))
            parts.append(mixed_BHTF.transpose(1, 2).flatten(2).flatten(0, 1))
        return self.out(torch.cat(parts)[:, None])

    def _out(self, mixed_NTF: Tensor) -> Tensor:
        mixed_BHTF = mixed_NTF.unflatten(0, (-1, self.num_heads))
        return self.out(mixed_BHTF.permute(2, 0, 1, 3).flatten(2))


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
        paired_TBCHF: Tensor,
        values_NTF: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
    ) -> Tensor:
        split = (-1, self.num_heads)
        queries_NTF, keys_NTF = by_head(rotation.heads(paired_TBCHF))
        mixed_BHTF = F.scaled_dot_product_attention(
            queries_NTF.unflatten(0, split),
            keys_NTF.unflatten(0, split),
            values_NTF.unflatten(0, split),
            attn_mask=None if valid_BT is None else valid_BT[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return mixed_BHTF.flatten(0, 1)

    def weights(
        self, paired_TBCHF: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> Tensor:
        queries_NTF, keys_NTF = by_head(rotation.heads(paired_TBCHF))
        full = torch.promote_types(queries_NTF.dtype, torch.float32)
        scores_NTT = torch.bmm(queries_NTF, keys_NTF.mT).to(full) / math.sqrt(queries_NTF.size(-1))
        if valid_BT is None:
            return scores_NTT.softmax(-1)
        unseen_N1T = ~valid_BT.repeat_interleave(self.num_heads, 0)[:, None]
        weights_NTT = scores_NTT.masked_fill(unseen_N1T, -torch.inf).softmax(-1)
        return weights_NTT.masked_fill(unseen_N1T, 0.0)  # a row without keys is not a number


def _as_batch(packed: Tensor, run: Run) -> Tensor:
    """Tokens end to end (num * length, ...) as (length, num, ...)."""
    return packed.unflatten(0, (run.num, run.length)).transpose(0, 1)
