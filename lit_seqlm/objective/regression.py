"""Numbers of whole sequences."""

# B = sequences, K = targets, Q = quantile levels

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.head.prediction import (
    EvidentialPrediction,
    GaussianPrediction,
    Prediction,
    QuantilePrediction,
)
from lit_seqlm.objective.labels import checked_weights, filled, labels_loss
from lit_seqlm.objective.loss import Loss

Kind = TypeVar("Kind", bound=Prediction)


class Regression:
    """Loss of every label that is present, on the scaled targets.

    Args:
        loss: ``l1``, ``mse`` and ``huber`` for heads of one number a target; ``gaussian``, ``quantile``
            and ``evidential`` for the head of that name.
        huber_delta: where ``huber`` turns from a square into a line, in standard deviations of a target.
        evidence_weight: of the second term of ``evidential``.
        task_weights: one factor for each target; null for equal ones.
    """

    def __init__(
        self,
        loss: str,
        huber_delta: float,
        evidence_weight: float,
        task_weights: Sequence[float] | None,
    ):
        losses: dict[str, Callable[[Prediction, Tensor], Tensor]] = {
            "l1": absolute,
            "mse": squared,
            "huber": partial(huber, delta=huber_delta),
            "gaussian": gaussian,
            "quantile": quantile,
            "evidential": partial(evidential, weight=evidence_weight),
        }
        if loss not in losses:
            raise UserError(f"objective.loss={loss}: {did_you_mean(loss, losses)}")
        if huber_delta <= 0 or evidence_weight < 0:
            raise UserError(
                f"objective.huber_delta={huber_delta} must be above 0, and "
                f"objective.evidence_weight={evidence_weight} at least 0"
            )
        self.loss, self.task_weights = losses[loss], checked_weights(task_weights)

    def __call__(self, prediction: Prediction, wanted_BK: Tensor) -> Loss:
        """Loss against scaled labels, NaN where missing.

        Of what it returns, `clean_nll_N` is each label's loss without weights and `targets_N` the
        index of its target.
        """
        label_BK, present_BK = filled(wanted_BK)
        return labels_loss(self.loss(prediction, label_BK), present_BK, self.task_weights)


def absolute(prediction: Prediction, label_BK: Tensor) -> Tensor:
    """|y - m|: the loss of MoLFormer's fine-tuning."""
    return (_number(prediction, "l1") - label_BK).abs()


def squared(prediction: Prediction, label_BK: Tensor) -> Tensor:
    """(y - m)^2."""
    return (_number(prediction, "mse") - label_BK).square()


def huber(prediction: Prediction, label_BK: Tensor, delta: float) -> Tensor:
    """e^2 / 2 up to delta, delta (|e| - delta / 2) beyond (Huber 1964)."""
    return F.huber_loss(_number(prediction, "huber"), label_BK, reduction="none", delta=delta)


def gaussian(prediction: Prediction, label_BK: Tensor) -> Tensor:
    """Negative log-density of a normal distribution, in nats (Nix and Weigend 1994)."""
    normal = _of_kind(prediction, GaussianPrediction, "gaussian")
    variance_BK = normal.variance_BK.double()
    error_BK = normal.mean_BK.double() - label_BK
    return 0.5 * ((2 * math.pi * variance_BK).log() + error_BK.square() / variance_BK)


def quantile(prediction: Prediction, label_BK: Tensor) -> Tensor:
    """Mean over the levels t of max(t e, (t - 1) e), e = y - q_t (Koenker and Bassett 1978)."""
    quantiles = _of_kind(prediction, QuantilePrediction, "quantile")
    error_BKQ = label_BK[..., None] - quantiles.quantiles_BKQ.double()
    level_Q = error_BKQ.new_tensor(quantiles.levels)
    return torch.maximum(level_Q * error_BKQ, (level_Q - 1) * error_BKQ).mean(-1)


def evidential(prediction: Prediction, label_BK: Tensor, weight: float) -> Tensor:
    """-log Student-t(y; m, b (1 + n) / (n a), 2 a) + weight |y - m| (2 n + a), in nats.

    Amini et al., NeurIPS 2020, equations 8 and 9: n, a and b are evidence, shape and rate. The
    second term takes evidence away where the prediction is wrong.
    """
    normal = _of_kind(prediction, EvidentialPrediction, "evidential")
    nu_BK, alpha_BK = normal.evidence_BK.double(), normal.shape_BK.double()
    error_BK = label_BK - normal.mean_BK.double()
    omega_BK = 2 * normal.rate_BK.double() * (1 + nu_BK)
    nll_BK = (
        0.5 * (math.pi / nu_BK).log()
        - alpha_BK * omega_BK.log()
        + (alpha_BK + 0.5) * (error_BK.square() * nu_BK + omega_BK).log()
        + torch.lgamma(alpha_BK)
        - torch.lgamma(alpha_BK + 0.5)
    )
    return nll_BK + weight * error_BK.abs() * (2 * nu_BK + alpha_BK)


def _number(prediction: Prediction, loss: str) -> Tensor:
    """The prediction, if it is all that the head gives: what else it gave would stay untrained, yet be reported."""
    if type(prediction) is not Prediction:
        name = type(prediction).__name__.removesuffix("Prediction").lower()
        raise UserError(
            f"objective.loss={loss} would not train the uncertainty that head={name} predicts. Say "
            f"objective.loss={name}, or head=molformer."
        )
    return prediction.mean_BK.double()


def _of_kind(prediction: Prediction, kind: type[Kind], name: str) -> Kind:
    if not isinstance(prediction, kind):
        raise UserError(f"objective.loss={name} needs what head={name} predicts. Say head={name}.")
    return prediction
