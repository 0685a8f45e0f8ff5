"""The steps of linear attention whose gradients autograd would leave in an order that costs a pass.

Everything over tokens works on heads (N, T, .), contiguous; gradients here come back so as well.
"""

# B = sequences, T = tokens, C = 2: queries, keys; H = heads, N = B * H, F = size of a head, R = features

from typing import Any

import torch
from torch import Tensor


def by_head(paired_TBCHF: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys with the tokens of a head side by side, (N, T, F) each."""
    queries_NTF, keys_NTF = paired_TBCHF.permute(2, 1, 3, 0, 4).flatten(1, 2)
    return queries_NTF, keys_NTF


def rectified(paired_TBCHF: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """relu(x Omega) of queries and of keys, (N, T, R) each; Omega (F, R), or (T, F, R) by position."""
    if torch.compiler.is_compiling():
        return by_head(torch.relu(_times(paired_TBCHF, omega)))
    return _Rectified.apply(paired_TBCHF, omega)


def pairs(queries_NTR: Tensor, keys_NTR: Tensor) -> Tensor:
    """Products of all queries with all keys of a head, (N, T, T)."""
    if torch.compiler.is_compiling():
        return torch.bmm(queries_NTR, keys_NTR.mT)
    return _Pairs.apply(queries_NTR, keys_NTR)


def sums(keys_NTR: Tensor, values_NTF: Tensor) -> Tensor:
    """sum_t k_t v_t^T of every head, (N, R, F)."""
    if torch.compiler.is_compiling():
        return torch.bmm(keys_NTR.mT, values_NTF)
    return _Sums.apply(keys_NTR, values_NTF)


class _Rectified(torch.autograd.Function):
    """One product for queries and keys, by position; relu and the new order are one pass over it.

    Autograd would pass through the tokens of all heads out of order, several times.
    """

    @staticmethod
    def forward(ctx: Any, paired_TBCHF: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
        queries_TBHR, keys_TBHR = _times(paired_TBCHF, omega).unbind(2)
        queries_NTR, keys_NTR = _relu_by_head(queries_TBHR), _relu_by_head(keys_TBHR)
        ctx.save_for_backward(queries_NTR, keys_NTR, omega)
        ctx.shape = (*paired_TBCHF.shape[:-1], omega.size(-1))
        return queries_NTR, keys_NTR

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        *features, omega = ctx.saved_tensors
        _, num_rows, _, num_heads, _ = ctx.shape
        through_TBCHR = gradients[0].new_empty(ctx.shape)
        for part in (0, 1):
            through_NTR = torch.ops.aten.threshold_backward(gradients[part], features[part], 0)
            through_BHTR = through_NTR.unflatten(0, (num_rows, num_heads))
            through_TBCHR[:, :, part] = through_BHTR.permute(2, 0, 1, 3)
        return _times(through_TBCHR, omega.mT), None


class _Pairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries_NTR: Tensor, keys_NTR: Tensor) -> Tensor:
        ctx.save_for_backward(queries_NTR, keys_NTR)
        return torch.bmm(queries_NTR, keys_NTR.mT)

    @staticmethod
    def backward(ctx: Any, gradient_NTT: Tensor) -> tuple[Tensor, Tensor]:
        queries_NTR, keys_NTR = ctx.saved_tensors
        return torch.bmm(gradient_NTT, keys_NTR), torch.bmm(gradient_NTT.mT, queries_NTR)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys_NTR: Tensor, values_NTF: Tensor) -> Tensor:
        ctx.save_for_backward(keys_NTR, values_NTF)
        return torch.bmm(keys_NTR.mT, values_NTF)

    @staticmethod
    def backward(ctx: Any, gradient_NRF: Tensor) -> tuple[Tensor, Tensor]:
        keys_NTR, values_NTF = ctx.saved_tensors
        return torch.bmm(values_NTF, gradient_NRF.mT), torch.bmm(keys_NTR, gradient_NRF)


def _times(paired_TBCHF: Tensor, omega: Tensor) -> Tensor:
    product = torch.matmul(paired_TBCHF.flatten(1, 3), omega)
    return product.view(*paired_TBCHF.shape[:-1], omega.size(-1))


def _relu_by_head(heads_TBHR: Tensor) -> Tensor:
    ordered_BHTR = heads_TBHR.permute(1, 2, 0, 3)
    result_BHTR = ordered_BHTR.new_empty(ordered_BHTR.shape)
    return torch.clamp_min(ordered_BHTR, 0, out=result_BHTR).flatten(0, 1)
