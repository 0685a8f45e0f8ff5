"""Negative log-likelihood of target words without ever holding all N x V logits.

One chunk of rows at a time: logits, softmax in place, and at once the gradients of this chunk, so that the
backward pass only scales what is already there. Three matrix products in all, as many as the plain path needs,
and memory that does not grow with N x V. The adversary's margin, label smoothing and a mixture of softmaxes
are part of the same pass.
"""

# N = positions, K = experts of a mixture (1 for an ordinary softmax), D = hidden size, V = vocabulary, M = N * K

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_ELEMENTS = 2**22  # logits of one chunk: 16 MiB in float32, small enough for a last-level cache
MIN_CHUNK_ROWS = 128  # fewer rows make the products with W memory-bound


def plain_nll(
    hidden_NKD: Tensor,
    log_prior_NK: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    margin_NK: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The same as `fused_nll`, written as one reads it and holding all logits: the oracle of the fused path."""
    logits_NKV = hidden_NKD @ weight_VD.T + bias_V
    full = torch.promote_types(logits_NKV.dtype, torch.float32)
    logits_NKV, log_prior_NK, margin_NK = logits_NKV.to(full), log_prior_NK.to(full), margin_NK.to(full)
    index_NK1 = targets_N[:, None, None].expand(-1, hidden_NKD.size(1), 1)
    clean_NK = _pick(logits_NKV.detach().log_softmax(-1), index_NK1)
    logits_NKV = logits_NKV.scatter_add(-1, index_NK1, -margin_NK[..., None])
    log_prob_NKV = logits_NKV.log_softmax(-1)
    score_NK = _pick(log_prob_NKV, index_NK1)
    if label_smoothing:
        score_NK = (1 - label_smoothing) * score_NK + label_smoothing * log_prob_NKV.mean(-1)
    nll_N = -torch.logsumexp(log_prior_NK + score_NK, dim=1)
    clean_nll_N = -torch.logsumexp(log_prior_NK.detach() + clean_NK, dim=1)
    return nll_N.double().sum(), clean_nll_N


def fused_nll(
    hidden_NKD: Tensor,
    log_prior_NK: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    margin_NK: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Sum of the negative log-likelihoods, and each position's own without margin or smoothing.

    -log p(y) = -log sum_k prior_k exp(z'_ky) / sum_j exp(z'_kj), where z' is z less the margin at the target
    (Wang et al. 2019: the worst change of the target's row; a mixture of softmaxes: Yang et al. 2018).

    Args:
        hidden_NKD: inputs of the output embedding, one row per position and expert.
        log_prior_NK: log mixture weights; zeros for an ordinary softmax (K = 1).
        weight_VD, bias_V: the output embedding.
        targets_N: word ids in [0, V).
        margin_NK: subtracted from the target's logit; zeros where there is none.
        label_smoothing: uniform mass taken from the target; K = 1 only.

    Returns:
        The sum as a float64 scalar that carries gradients to all floating inputs, and the clean nll_N, detached.
    """
    if label_smoothing and hidden_NKD.size(1) > 1:
        raise ValueError("label smoothing is defined for a single softmax, not for a mixture")
    inputs = (hidden_NKD, log_prior_NK, weight_VD, bias_V, targets_N, margin_NK, label_smoothing)
    return _FusedNLL.apply(*inputs, torch.is_grad_enabled())  # inside, autograd is always off


class _FusedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NKD: Tensor,
        log_prior_NK: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        targets_N: Tensor,
        margin_NK: Tensor,
        smoothing: float,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        work = _Workspace(hidden_NKD, weight_VD, bias_V, needs_grad)
        num_rows, num_experts, hidden_size = hidden_NKD.shape
        log_prior_NK, margin_NK = log_prior_NK.to(work.full), margin_NK.to(work.full)
        total = torch.zeros((), dtype=torch.float64, device=hidden_NKD.device)
        clean_nll_N = margin_NK.new_empty(num_rows)
        d_prior_NK, d_margin_NK = torch.zeros_like(log_prior_NK), torch.zeros_like(margin_NK)
        for rows in work.chunks(num_rows, num_experts):
            hidden_MD = hidden_NKD[rows].reshape(-1, hidden_size).to(work.dtype)
            target_M1 = targets_N[rows].repeat_interleave(num_experts)[:, None]
            margin_nK = margin_NK[rows]
            prob_MV, z_M, lse_M = work.softmax(hidden_MD, target_M1, margin_nK.reshape(-1, 1), smoothing)
            score_nK = (z_M - lse_M).view_as(margin_nK)
            joint_nK = log_prior_NK[rows] + score_nK
            log_p_n = torch.logsumexp(joint_nK, dim=1)
            total -= log_p_n.double().sum()
            # Undo the margin: the clean normaliser differs from the margined one by the target's term alone.
            p_nK = prob_MV.gather(1, target_M1).view_as(margin_nK)
            shift_nK = torch.log1p(p_nK * torch.expm1(margin_nK))
            log_clean_nK = work.target_logit.view_as(margin_nK) - lse_M.view_as(margin_nK) - shift_nK
            clean_nll_N[rows] = -torch.logsumexp(log_prior_NK[rows] + log_clean_nK, dim=1)
            if work.needs_grad:
                share_nK = torch.exp(joint_nK - log_p_n[:, None])
                d_prior_NK[rows] = -share_nK
                d_margin_NK[rows] = share_nK * (1 - smoothing + smoothing / work.vocab_size - p_nK)
                work.accumulate(rows, prob_MV, hidden_MD, target_M1, share_nK, smoothing)
        if work.needs_grad:
            ctx.save_for_backward(
                work.d_hidden, d_prior_NK, work.d_weight, work.d_bias, d_margin_NK
            )
        ctx.mark_non_differentiable(clean_nll_N)
        return total, clean_nll_N

    @staticmethod
    def backward(ctx: Any, d_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_prior, d_weight, d_bias, d_margin = (
            (grad * d_total.to(grad.dtype)) if needed else None
            for grad, needed in zip(
                ctx.saved_tensors, [ctx.needs_input_grad[i] for i in (0, 1, 2, 3, 5)], strict=True
            )
        )
        return d_hidden, d_prior, d_weight, d_bias, None, d_margin, None, None


class _Workspace:
    """Buffers of one call: the logits of a chunk, and the gradients as they build up."""

    def __init__(self, hidden_NKD: Tensor, weight_VD: Tensor, bias_V: Tensor, needs_grad: bool):
        device = hidden_NKD.device.type
        autocast = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device) if autocast else weight_VD.dtype
        self.full = torch.promote_types(self.dtype, torch.float32)  # logits and sums, whatever the products use
        self.weight_VD = weight_VD.to(self.dtype)
        self.bias_V = bias_V.to(self.full)
        self.vocab_size = weight_VD.size(0)
        self.needs_grad = needs_grad
        self.buffer: Tensor | None = None
        if needs_grad:
            self.d_hidden = torch.empty_like(hidden_NKD, memory_format=torch.contiguous_format)
            self.d_weight = torch.zeros_like(weight_VD)
            self.d_bias = torch.zeros_like(bias_V)

    def chunks(self, num_rows: int, num_experts: int) -> Iterator[slice]:
        elements = CHUNK_ELEMENTS if self.weight_VD.device.type == "cpu" else 16 * CHUNK_ELEMENTS
        rows = max(MIN_CHUNK_ROWS, elements // self.vocab_size) // num_experts or 1
        for start in range(0, num_rows, rows):
            yield slice(start, min(start + rows, num_rows))

    def softmax(
        self, hidden_MD: Tensor, target_M1: Tensor, margin_M1: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities under the margined logits, the (smoothed) target score, the log normaliser."""
        logits_MV = self._logits(hidden_MD)
        target_logit_M1 = logits_MV.gather(1, target_M1)
        self.target_logit = target_logit_M1.squeeze(1)
        score_M = self.target_logit - margin_M1.squeeze(1)
        logits_MV.scatter_(1, target_M1, score_M[:, None])
        if smoothing:
            score_M = (1 - smoothing) * score_M + smoothing * logits_MV.mean(1)
        peak_M, argmax_M = logits_MV.max(dim=1)
        prob_MV = torch.softmax(logits_MV, dim=1, out=logits_MV)
        # At the maximum, p = 1 / sum exp(z - peak): the normaliser without another pass of exp.
        lse_M = peak_M - prob_MV.gather(1, argmax_M[:, None]).squeeze(1).log()
        return prob_MV, score_M, lse_M

    def accumulate(
        self,
        rows: slice,
        prob_MV: Tensor,
        hidden_MD: Tensor,
        target_M1: Tensor,
        share_nK: Tensor,
        smoothing: float,
    ) -> None:
        """Add this chunk's gradients; `prob_MV` becomes the gradient of the logits."""
        prob_MV.scatter_add_(1, target_M1, torch.full_like(target_M1, -(1 - smoothing), dtype=prob_MV.dtype))
        if smoothing:
            prob_MV -= smoothing / self.vocab_size
        if share_nK.size(1) > 1:
            prob_MV *= share_nK.reshape(-1, 1)
        grad_MV = prob_MV.to(self.dtype)
        self.d_hidden[rows] = (grad_MV @ self.weight_VD).view(-1, *self.d_hidden.shape[1:])
        self.d_bias += prob_MV.sum(0)
        if self.dtype == self.d_weight.dtype:
            self.d_weight.addmm_(grad_MV.T, hidden_MD)
        else:
            self.d_weight += grad_MV.T @ hidden_MD

    def _logits(self, hidden_MD: Tensor) -> Tensor:
        if self.dtype != self.full:
            return F.linear(hidden_MD, self.weight_VD).to(self.full) + self.bias_V
        if self.buffer is None:
            self.buffer = hidden_MD.new_empty(hidden_MD.size(0), self.vocab_size)
        out = self.buffer[: hidden_MD.size(0)]
        return torch.addmm(self.bias_V, hidden_MD, self.weight_VD.T, out=out)


def _pick(values_NKV: Tensor, index_NK1: Tensor) -> Tensor:
    return values_NKV.gather(-1, index_NK1).squeeze(-1)
