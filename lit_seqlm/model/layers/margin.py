"""Where a regularizer meets a softmax: the one function behind every output embedding."""

# B = sequences, T = tokens, N = positions that count, K = experts, M = N * K, D = hidden size,
# V = vocabulary

from collections.abc import Callable
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.fused_nll import fused_nll
from lit_seqlm.model.layers.plain_nll import plain_nll

NLL = Callable[..., tuple[Tensor, Tensor]]
LOSS_PATHS: dict[str, NLL] = {"fused": fused_nll, "plain": plain_nll}


class Margin(Protocol):
    """What an output embedding asks of a regularizer (see `lit_seqlm.regularizer`)."""

    adaptive_scope: str

    def target_margin(
        self, hidden_ND: Tensor, target_rows_ND: Tensor, targets_N: Tensor
    ) -> Tensor: ...

    def target_rise(self, hidden_ND: Tensor, target_rows_ND: Tensor) -> Tensor: ...

    def augment(self, hidden_ND: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]: ...


def select(values_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """The positions that count, in a row: (B, T, ...) becomes (N, ...)."""
    flat = values_BT.flatten(0, 1)
    return flat if mask_BT is None else flat[mask_BT.flatten()]


def dense_nll(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    regularizer: Margin,
    label_smoothing: float,
    path: str,
) -> tuple[Tensor, Tensor]:
    hidden_N1D = hidden_ND[:, None]
    log_prior_N1 = hidden_ND.new_zeros(hidden_ND.size(0), 1)
    return margined_nll(
        hidden_N1D, log_prior_N1, weight_VD, bias_V, targets_N, regularizer, label_smoothing, path
    )


def margined_nll(
    hidden_NKD: Tensor,
    log_prior_NK: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor,
    targets_N: Tensor,
    regularizer: Margin,
    label_smoothing: float,
    path: str,
) -> tuple[Tensor, Tensor]:
    """The one place where a regularizer meets a softmax: every expert has its own margin."""
    if label_smoothing and hidden_NKD.size(1) > 1:
        raise UserError(
            "objective.label_smoothing is defined for one softmax, not for a mixture: set it to 0"
        )
    num_rows, num_experts, size = hidden_NKD.shape
    targets_M = targets_N.repeat_interleave(num_experts)
    hidden_MD = hidden_NKD.reshape(-1, size)
    rows_MD = F.embedding(targets_M, weight_VD)
    margin_M = regularizer.target_margin(hidden_MD, rows_MD, targets_M)
    margin_M = margin_M + regularizer.target_rise(hidden_MD, rows_MD)
    hidden_MD, weight_VD = regularizer.augment(hidden_MD, weight_VD)
    return LOSS_PATHS[path](
        hidden_MD.unflatten(0, (num_rows, num_experts)),
        log_prior_NK,
        weight_VD,
        bias_V,
        targets_N,
        margin_M.view(num_rows, num_experts),
        label_smoothing,
    )
