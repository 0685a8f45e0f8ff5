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
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = (
    2**22
)  # logits of one chunk: 16 MiB in float32, small enough for a last-level cache
MIN_CHUNK_ROWS = 128  # fewer rows make the products with W memory-bound
BLOCK_WORDS = 512  # per thread; MKL's product with all of W at once takes up to 1.5 times as long
LARGE_MARGIN = 40.0  # exp(margin) - 1 and exp(margin) are the same number from here on


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
    """Computes the gradients with the loss; the backward pass scales them where they are and gives them away.

    A second backward pass through the same graph computes them anew: a copy kept for it would be one more V x D.
    """

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
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = (hidden_NKD, log_prior_NK, weight_VD, bias_V, targets_N, margin_NK)
        device = hidden_NKD.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else weight_VD.dtype
        ctx.options = (smoothing, dtype, ctx.needs_input_grad if grad_enabled else (False,) * 8)
        total, clean_nll_N, ctx.grads = _one_pass(*inputs, *ctx.options)
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(clean_nll_N)
        return total, clean_nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = ctx.grads or _one_pass(*ctx.saved_tensors, *ctx.options)[2]
        ctx.grads = None
        d_hidden, d_prior, d_weight, d_bias, d_margin = (
            grad.mul_(d_total.to(grad.dtype)) if grad is not None else None for grad in grads
        )
        return d_hidden, d_prior, d_weight, d_bias, None, d_margin, None, None


Gradients = tuple[Tensor | None, ...]


def _one_pass(
    hidden_NKD: Tensor,
    log_prior_NK: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    margin_NK: Tensor,
    smoothing: float,
    dtype: torch.dtype,
    needed: tuple[bool, ...],
) -> tuple[Tensor, Tensor, Gradients]:
    """The sum, the clean nll_N, and the gradients of the sum (hidden, prior, weight, bias, margin)."""
    work = _Workspace(hidden_NKD, weight_VD, bias_V, dtype, needed)
    num_rows, num_experts, hidden_size = hidden_NKD.shape
    log_prior_NK, margin_NK = log_prior_NK.to(work.full), margin_NK.to(work.full)
    total = torch.zeros((), dtype=torch.float64, device=hidden_NKD.device)
    clean_nll_N = margin_NK.new_empty(num_rows)
    d_prior_NK, d_margin_NK = torch.empty_like(log_prior_NK), torch.empty_like(margin_NK)
    for rows in work.chunks(num_rows, num_experts):
        hidden_MD = hidden_NKD[rows].reshape(-1, hidden_size).to(work.dtype)
        target_M1 = targets_N[rows].repeat_interleave(num_experts)[:, None]
        prior_nK, margin_nK = log_prior_NK[rows], margin_NK[rows]
        prob_MV, score_M, clean_M, lse_M = work.softmax(
            hidden_MD, target_M1, margin_nK.flatten(), smoothing
        )
        p_M1 = prob_MV.gather(1, target_M1)
        p_nK = p_M1.view_as(margin_nK)
        joint_nK = prior_nK + (score_M - lse_M).view_as(margin_nK)
        log_p_n = torch.logsumexp(joint_nK, dim=1)
        total -= log_p_n.double().sum()
        log_clean_nK = _without_margin((clean_M - lse_M).view_as(margin_nK), p_nK, margin_nK)
        clean_nll_N[rows] = -torch.logsumexp(prior_nK + log_clean_nK, dim=1)
        if any(needed):
            share_nK = torch.exp(joint_nK - log_p_n[:, None])
            d_prior_NK[rows] = -share_nK
            d_margin_NK[rows] = share_nK * (1 - smoothing + smoothing / work.vocab_size - p_nK)
            prob_MV.scatter_(1, target_M1, p_M1 - (1 - smoothing))
            work.accumulate(rows, prob_MV, hidden_MD, share_nK, smoothing)
    grads = (work.d_hidden, d_prior_NK, work.d_weight, work.d_bias, d_margin_NK)
    wanted = (needed[0], needed[1], needed[2], needed[3], needed[5])
    return total, clean_nll_N, tuple(g if w else None for g, w in zip(grads, wanted, strict=True))


class _Workspace:
    """Buffers of one call: the logits of a chunk, and the gradients as they build up."""

    def __init__(
        self,
        hidden_NKD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        dtype: torch.dtype,
        needed: tuple[bool, ...],
    ):
        self.dtype = dtype  # of the products
        self.full = torch.promote_types(dtype, torch.float32)  # of logits and sums
        self.weight_VD = weight_VD.to(self.dtype)
        self.bias_V = bias_V.to(self.full)
        self.vocab_size = weight_VD.size(0)
        self.on_cpu = weight_VD.device.type == "cpu"
        self.buffer: Tensor | None = None
        need_hidden, _, need_weight, need_bias = needed[:4]
        self.d_hidden = (
            torch.empty_like(hidden_NKD, memory_format=torch.contiguous_format)
            if need_hidden
            else None
        )
        self.d_weight = torch.zeros_like(weight_VD) if need_weight else None
        self.d_bias = torch.zeros_like(self.bias_V) if need_bias else None

    def chunks(self, num_rows: int, num_experts: int) -> Iterator[slice]:
        """Rows of about equal number: a short last chunk would read all of W for little."""
        elements = CHUNK_ELEMENTS if self.on_cpu else 16 * CHUNK_ELEMENTS
        most = max(MIN_CHUNK_ROWS, elements // self.vocab_size) // num_experts or 1
        rows = -(-num_rows // max(1, -(-num_rows // most)))
        for start in range(0, num_rows, max(1, rows)):
            yield slice(start, min(start + rows, num_rows))

    def softmax(
        self, hidden_MD: Tensor, target_M1: Tensor, margin_M: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Probabilities with the margin, the (smoothed) target score, its clean logit, the log normaliser."""
        logits_MV = self._logits(hidden_MD)
        clean_M = logits_MV.gather(1, target_M1).squeeze(1)
        score_M = clean_M - margin_M
        logits_MV.scatter_(1, target_M1, score_M[:, None])
        if smoothing:
            score_M = (1 - smoothing) * score_M + smoothing * logits_MV.mean(1)
        peak_M = logits_MV.amax(1)
        prob_MV = torch.softmax(logits_MV, dim=1, out=logits_MV)
        # The largest p is 1 / sum exp(z - peak): the normaliser without another pass of exp.
        return prob_MV, score_M, clean_M, peak_M - prob_MV.amax(1).log()

    def accumulate(
        self,
        rows: slice,
        d_logits_MV: Tensor,
        hidden_MD: Tensor,
        share_nK: Tensor,
        smoothing: float,
    ) -> None:
        """Add this chunk's gradients; the experts' shares scale what is small, not the M x V."""
        share_M = share_nK.flatten()
        if smoothing:
            d_logits_MV -= smoothing / self.vocab_size
        if self.d_bias is not None:
            self.d_bias.addmv_(d_logits_MV.T, share_M)  # a third of the time of sum(0)
        d_logits_MV = d_logits_MV.to(self.dtype)
        if self.d_hidden is not None:
            d_hidden_MD = (d_logits_MV @ self.weight_VD) * share_M[:, None]
            self.d_hidden[rows] = d_hidden_MD.view(-1, *self.d_hidden.shape[1:])
        if self.d_weight is not None:
            shared_MD = (hidden_MD * share_M[:, None]).to(self.dtype)
            if self.dtype == self.d_weight.dtype:
                self.d_weight.addmm_(d_logits_MV.T, shared_MD)
            else:
                self.d_weight += d_logits_MV.T @ shared_MD

    def _logits(self, hidden_MD: Tensor) -> Tensor:
        if self.dtype != self.full:
            return F.linear(hidden_MD, self.weight_VD).to(self.full) + self.bias_V
        if self.buffer is None:
            self.buffer = hidden_MD.new_empty(hidden_MD.size(0), self.vocab_size)
        out_MV = self.buffer[: hidden_MD.size(0)]
        block = BLOCK_WORDS * torch.get_num_threads() if self.on_cpu else self.vocab_size
        for low in range(0, self.vocab_size, block):
            words = slice(low, low + block)
            torch.addmm(
                self.bias_V[words], hidden_MD, self.weight_VD[words].T, out=out_MV[:, words]
            )
        return out_MV


def _without_margin(log_odds_NK: Tensor, p_NK: Tensor, margin_NK: Tensor) -> Tensor:
    """log p of the target before the margin: the normaliser changes by the target's term alone.

    `log_odds_NK` is the clean logit less the margined normaliser; the ratio of the normalisers is
    1 + p (exp(margin) - 1), which beyond exp's range is 1 + exp(log_odds).
    """
    grown_NK = p_NK * torch.expm1(margin_NK.clamp(max=LARGE_MARGIN))
    shift_NK = torch.log1p(grown_NK.clamp(min=torch.finfo(p_NK.dtype).eps - 1))
    far_NK = torch.logaddexp(log_odds_NK, torch.zeros_like(log_odds_NK))
    return log_odds_NK - torch.where(margin_NK > LARGE_MARGIN, far_NK, shift_NK)
