"""Weights that are given."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_seqlm.cache.mixing.components import log, mix, stack, weights
from lit_seqlm.cache.record import Record


class Fixed:
    """p = (1 - sum_m lam_m) p_static + sum_m lam_m p_m (Grave, Joulin and Usunier, 2016, linear).

    Args:
        lam: weight of each memory by name.

    Raises:
        UserError: for weights that are missing, not within 0 and 1, or above 1 in sum.
    """

    def __init__(self, lam: Mapping[str, float]):
        self.lam = dict(lam)
        weights(self.lam, list(self.lam))

    def fit(self, valid: Record, chosen: Mapping[str, int]) -> None:
        """Checks the weights; there is nothing to learn."""
        weights(self.lam, list(chosen))

    def log_prob(self, record: Record, chosen: Mapping[str, int]) -> np.ndarray:
        """float64 (N,)."""
        return mix(log(weights(self.lam, list(chosen))), stack(record, chosen))

    def describe(self) -> dict[str, Any]:
        return {"weights": "fixed", "lam": self.lam}
