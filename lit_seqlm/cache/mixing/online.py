"""Weights found on the stream itself: Bayes over a grid of mixtures."""

# C = components (the static model first), E = experts, B = tokens of a block, N = scored tokens

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_seqlm.cache.mixing.components import log, ratios, stack
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError

BLOCK = 1024  # tokens whose E experts are held at once


class Online:
    """An expert is one point of the simplex of weights, and each counts as much as it has earned so far.

        p(y_t) = sum_e v_e(t) p_e(y_t),     v_e(t) ~ exp(sum_{s<t} log p_e(y_s)),     p_e = sum_c w_ec p_c

    No validation text is used. The stream costs at most ln(number of experts) nats more than the
    best constant weights of the grid in hindsight (Cesa-Bianchi and Lugosi 2006, section 9.2).

    Args:
        step: distance of the grid's points; 1/step is a whole number.
        max_experts: with several memories the grid is made coarser until it has no more points.

    Raises:
        UserError: for a step or a number of experts that makes no grid.
    """

    def __init__(self, step: float, max_experts: int):
        self.divisions = round(1 / step) if 0 < step <= 1 else 0
        if not self.divisions or abs(step * self.divisions - 1) > 1e-6:
            raise UserError(
                f"task.mixing.step={step}: it must divide 1 into equal parts. Try task.mixing.step=0.05."
            )
        if max_experts < 2:
            raise UserError(
                f"task.mixing.max_experts={max_experts}: at least 2. Try task.mixing.max_experts=300."
            )
        self.max_experts = max_experts
        self.found: dict[str, Any] = {}

    def fit(self, valid: Record, chosen: Mapping[str, int]) -> None:
        """Nothing is learnt beforehand."""

    def log_prob(self, record: Record, chosen: Mapping[str, int]) -> np.ndarray:
        """float64 (N,); a stream begins with all experts equal."""
        divisions = self._divisions(len(chosen))
        weight_CE = simplex_grid(1 + len(chosen), divisions).T
        past_E = np.zeros(weight_CE.shape[1])
        mixed_N = np.empty(len(record))
        for start in range(0, len(record), BLOCK):
            stop = min(start + BLOCK, len(record))
            log_p_CB = stack(record.cut(start, stop), chosen)
            mixed_N[start:stop], past_E = follow(log_p_CB, weight_CE, past_E)
        trust_E = np.exp(past_E - past_E.max())
        last_C = weight_CE @ (trust_E / trust_E.sum())
        self.found = {
            "experts": len(past_E),
            "step": 1 / divisions,
            "lam_at_the_end": dict(zip(chosen, last_C[1:].tolist(), strict=True)),
        }
        return mixed_N

    def describe(self) -> dict[str, Any]:
        return {"weights": "online", **self.found}

    def _divisions(self, num_memories: int) -> int:
        divisions = self.divisions
        while (
            divisions > 1 and math.comb(divisions + num_memories, num_memories) > self.max_experts
        ):
            divisions -= 1
        return divisions


def simplex_grid(num_components: int, divisions: int) -> np.ndarray:
    """(E, C): all weights that are multiples of 1/divisions and sum to 1; the static model alone first."""
    bars = itertools.combinations(range(divisions + num_components - 1), num_components - 1)
    edges = np.array([(-1, *bar, divisions + num_components - 1) for bar in bars])
    counts = np.diff(edges, axis=1) - 1
    return counts[::-1] / divisions


def follow(
    log_p_CB: np.ndarray, weight_CE: np.ndarray, past_E: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(log p (B,), sums after the block (E,)); `past_E` is each expert's sum of log p before it.

    Sums are relative to the largest component at each token, which is the same for all experts. A
    token that no component explains has -inf and changes no expert's standing.
    """
    ratio_CB, peak_B = ratios(log_p_CB)
    p_BE = np.einsum("cb,ce->be", ratio_CB, weight_CE)
    sums_BE = np.empty((1 + len(p_BE), len(past_E)))
    sums_BE[0] = past_E
    sums_BE[1:] = log(p_BE)
    sums_BE[1:][peak_B == -np.inf] = 0
    np.cumsum(sums_BE, axis=0, out=sums_BE)
    before_BE = sums_BE[:-1]
    trust_BE = np.exp(before_BE - before_BE.max(1, keepdims=True))
    p_B = (trust_BE * p_BE).sum(1) / trust_BE.sum(1)
    return log(p_B) + peak_B, sums_BE[-1].copy()
