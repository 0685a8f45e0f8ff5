"""Weights found on the stream itself: expectation-maximisation, one token at a time."""

# C = components (the static model first), B = tokens of a block, N = scored tokens

from collections.abc import Mapping
from operator import mul
from typing import Any

import numpy as np

from lit_seqlm.cache.mixing.components import log, mix, ratios, stack, weights
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError

BLOCK = 4096  # tokens held as Python numbers at once


class OnlineEM:
    """The weight of a component is the share of the past that it explains.

        r_c = w_c p_c(y_t) / sum_k w_k p_k(y_t),     w <- w + (r - w) / (t + t0)

    Unlike the Bayes update w_c <- w_c p_c / sum, which asks which ONE component made the whole
    stream: a memory that gives a single target no mass would be out for ever. There, the experts
    have to be mixtures (`online`). Here a weight only shrinks towards the share, and comes back.

    Args:
        lam: weights at the start; what starts at 0 stays at 0.
        start_count: t0, how many tokens the start is worth.

    Raises:
        UserError: for a start count that is not above 0; when used, for weights that are none.
    """

    def __init__(self, lam: Mapping[str, float], start_count: float):
        if not start_count > 0:
            raise UserError(
                f"task.mixing.start_count={start_count}: must be above 0. Try task.mixing.start_count=100."
            )
        self.lam, self.start_count = dict(lam), start_count
        self.found: dict[str, float] = {}

    def fit(self, valid: Record, chosen: Mapping[str, int]) -> None:
        """Checks the weights at the start; nothing is learnt beforehand."""
        weights(self.lam, list(chosen))

    def log_prob(self, record: Record, chosen: Mapping[str, int]) -> np.ndarray:
        """float64 (N,); a stream begins with the weights given."""
        weight_C = weights(self.lam, list(chosen)).tolist()
        mixed_N = np.empty(len(record))
        for start in range(0, len(record), BLOCK):
            stop = min(start + BLOCK, len(record))
            log_p_CB = stack(record.cut(start, stop), chosen)
            ratio_CB, _ = ratios(log_p_CB)
            weight_CB, weight_C = follow(ratio_CB, weight_C, start + self.start_count)
            mixed_N[start:stop] = mix(log(weight_CB), log_p_CB)
        self.found = dict(zip(chosen, weight_C[1:], strict=True))
        return mixed_N

    def describe(self) -> dict[str, Any]:
        return {
            "weights": "em",
            "lam_at_the_start": self.lam,
            "start_count": self.start_count,
            "lam_at_the_end": self.found,
        }


def follow(
    ratio_CB: np.ndarray, weight_C: list[float], count: float
) -> tuple[np.ndarray, list[float]]:
    """(weights at each token (C, B), weights after the block); `count` is t0 and the tokens before it.

    The weights depend on each other, token by token: plain numbers are faster here than arrays of C.
    A token that no component explains changes no weight.
    """
    weight_BC = []
    for ratio_C in ratio_CB.T.tolist():
        weight_BC.append(weight_C)
        part_C = list(map(mul, weight_C, ratio_C))
        total = sum(part_C)
        count += 1
        if total > 0:
            weight_C = [
                weight + (part / total - weight) / count
                for weight, part in zip(weight_C, part_C, strict=True)
            ]
    return np.array(weight_BC).T, weight_C
