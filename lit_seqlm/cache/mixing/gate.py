"""Weights per token, from what is known before the target: a logistic model fitted on validation."""

# C = components (the static model first), M = memories, F = columns of features, N = scored tokens

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.cache.mixing.components import mix, stack
from lit_seqlm.cache.mixing.features import Columns
from lit_seqlm.cache.mixing.likelihood import best_weights
from lit_seqlm.cache.mixing.tuned import MAX_EXCHANGES, TOLERANCE
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError

SMALLEST_START = 1e-3  # weight from which a memory that is useless on average begins
MAX_STEPS = 200


class Gate:
    """log w_m / w_static = a_m + A_m f, with f the standardised features of the token.

    The nll of the mixture on validation, plus penalty |A|^2, is made small with L-BFGS, from the best
    constant weights and A = 0. The idea is that of the adaptive weight in later kNN language models:
    trust a memory where the static model is unsure and neighbours are near.

    Args:
        penalty: on the squares of A, in nats per token; constant weights when very large.

    Raises:
        UserError: for a penalty that is not above 0.
    """

    def __init__(self, penalty: float):
        if not penalty > 0:
            raise UserError(
                f"task.mixing.penalty={penalty}: must be above 0. Try task.mixing.penalty=1e-4 (weak)."
            )
        self.penalty = penalty
        self.columns = Columns()
        self.bias_M, self.matrix_MF = np.zeros(0), np.zeros((0, 0))
        self.memories: list[str] = []
        self.num_tokens = 0
        self.mean_C = np.ones(1)

    def fit(self, valid: Record, chosen: Mapping[str, int]) -> None:
        """Learn the columns' scale and the coefficients; float64."""
        self.memories, self.num_tokens = list(chosen), len(valid)
        features_NF = self.columns.fit(valid)
        log_p_CN = stack(valid, chosen)
        possible_N = log_p_CN.max(0) > -np.inf
        start_C = np.maximum(best_weights(log_p_CN, TOLERANCE, MAX_EXCHANGES), SMALLEST_START)
        self.bias_M = np.log(start_C[1:] / start_C[0])
        self.matrix_MF = np.zeros((len(chosen), features_NF.shape[1]))
        if chosen and possible_N.any():
            self.bias_M, self.matrix_MF = minimise(
                self.bias_M, features_NF[possible_N], log_p_CN[:, possible_N], self.penalty
            )
        log_weight_CN = self.log_weights(valid)
        self.mean_C = np.exp(log_weight_CN).mean(1) if len(valid) else start_C

    def log_weights(self, record: Record) -> np.ndarray:
        """(C, N), from the features alone."""
        features_NF = self.columns.standardised(record)
        logits_CN = np.zeros((1 + len(self.memories), len(record)))
        logits_CN[1:] = self.bias_M[:, None] + self.matrix_MF @ features_NF.T
        return logits_CN - np.logaddexp.reduce(logits_CN, axis=0)

    def log_prob(self, record: Record, chosen: Mapping[str, int]) -> np.ndarray:
        """float64 (N,)."""
        assert list(chosen) == self.memories, "fit on the same memories first"
        return mix(self.log_weights(record), stack(record, chosen))

    def describe(self) -> dict[str, Any]:
        """The coefficients are per standard deviation of the column on validation."""
        return {
            "weights": "gate",
            "penalty": self.penalty,
            "validation_tokens": self.num_tokens,
            "mean_lam_on_validation": dict(
                zip(self.memories, self.mean_C[1:].tolist(), strict=True)
            ),
            "coefficients": {
                memory: {
                    "bias": bias,
                    **dict(zip(self.columns.names, matrix_F.tolist(), strict=True)),
                }
                for memory, bias, matrix_F in zip(
                    self.memories, self.bias_M.tolist(), self.matrix_MF, strict=True
                )
            },
        }


def objective(
    bias_M: Tensor, matrix_MF: Tensor, features_NF: Tensor, log_p_CN: Tensor, penalty: float
) -> Tensor:
    """Mean nll of the gated mixture, plus the penalty."""
    logits_MN = bias_M[:, None] + matrix_MF @ features_NF.T
    logits_CN = torch.cat([torch.zeros_like(logits_MN[:1]), logits_MN])
    log_p_N = torch.logsumexp(logits_CN.log_softmax(0) + log_p_CN, 0)
    return penalty * matrix_MF.square().sum() - log_p_N.mean()


def minimise(
    bias_M: np.ndarray, features_NF: np.ndarray, log_p_CN: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """(bias, matrix), from this bias and a matrix of zeros; also where the caller needs no gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        features, log_p = torch.from_numpy(features_NF), torch.from_numpy(log_p_CN)
        bias = torch.from_numpy(bias_M).requires_grad_()
        matrix = torch.zeros(len(bias), features.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [bias, matrix],
            max_iter=MAX_STEPS,
            tolerance_grad=1e-8,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            optimizer.zero_grad()
            loss = objective(bias, matrix, features, log_p, penalty)
            loss.backward()
            return float(loss.detach())

        optimizer.step(closure)
    return bias.detach().numpy(), matrix.detach().numpy()
