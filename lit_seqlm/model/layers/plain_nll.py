"""Negative log-likelihood of target words as one reads it, with all N x V logits: the oracle of `fused_nll`."""

# N = positions, K = experts of a mixture (1 for an ordinary softmax), D = hidden size, V = vocabulary

import torch
from torch import Tensor


def plain_nll(
    hidden_NKD: Tensor,
    log_prior_NK: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    margin_NK: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What `fused_nll` returns, for the same arguments."""
    logits_NKV = hidden_NKD @ weight_VD.T + bias_V
    full = torch.promote_types(logits_NKV.dtype, torch.float32)
    logits_NKV, log_prior_NK, margin_NK = (
        logits_NKV.to(full),
        log_prior_NK.to(full),
        margin_NK.to(full),
    )
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


def _pick(values_NKV: Tensor, index_NK1: Tensor) -> Tensor:
    return values_NKV.gather(-1, index_NK1).squeeze(-1)
