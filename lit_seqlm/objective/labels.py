"""What the objectives on labels share: a missing label counts nowhere."""

# B = sequences, K = targets, N = labels that are present

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.objective.loss import Loss


def filled(wanted_BK: Tensor) -> tuple[Tensor, Tensor]:
    """(labels with 0 for NaN, which are present): a NaN would reach the gradient through `where`."""
    present_BK = ~wanted_BK.isnan()
    return torch.where(present_BK, wanted_BK, 0.0).double(), present_BK


def labels_loss(loss_BK: Tensor, present_BK: Tensor, weights_K: Sequence[float] | None) -> Loss:
    """Sum over the labels that are present, in float64, and how many they are.

    Args:
        loss_BK: of every label; what it is where none is present has no effect.
        weights_K: factors of the targets' losses in the sum; null for ones. They do not change the count.

    Raises:
        UserError: there are not as many weights as targets.
    """
    kept_BK = torch.where(present_BK, loss_BK.double(), 0.0)
    weighted_BK = kept_BK
    if weights_K is not None:
        if len(weights_K) != loss_BK.size(1):
            raise UserError(
                f"objective.task_weights has {len(weights_K)} numbers for {loss_BK.size(1)} targets: "
                "give one for each, or null"
            )
        weighted_BK = kept_BK * torch.as_tensor(weights_K, dtype=torch.float64).to(kept_BK.device)
    clean_N = kept_BK.detach()[present_BK]
    target_N = present_BK.nonzero()[:, 1]
    return Loss(weighted_BK.sum(), clean_N.numel(), clean_N, target_N)


def checked_weights(task_weights: Sequence[float] | None) -> list[float] | None:
    """The weights themselves, if none is negative and not all are zero."""
    if task_weights is None:
        return None
    if min(task_weights, default=-1.0) < 0 or not any(task_weights):
        raise UserError(
            f"objective.task_weights={list(task_weights)}: no weight may be negative, nor all be zero"
        )
    return list(task_weights)
