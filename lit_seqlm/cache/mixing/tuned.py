"""Weights of maximum likelihood on validation, then constant."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_seqlm.cache.mixing.components import log, mix, stack
from lit_seqlm.cache.mixing.likelihood import best_weights
from lit_seqlm.cache.record import Record

TOLERANCE = 1e-10  # nats per token from the maximum
MAX_EXCHANGES = 2000


class Tuned:
    """One weight per memory, the best there is on validation: no grid, no step size."""

    def __init__(self) -> None:
        self.lam: dict[str, float] = {}
        self.weight_C = np.ones(1)
        self.num_tokens = 0

    def fit(self, valid: Record, chosen: Mapping[str, int]) -> None:
        """Find the weights; `likelihood` says how."""
        self.weight_C = best_weights(stack(valid, chosen), TOLERANCE, MAX_EXCHANGES)
        self.lam = dict(zip(chosen, self.weight_C[1:].tolist(), strict=True))
        self.num_tokens = len(valid)

    def log_prob(self, record: Record, chosen: Mapping[str, int]) -> np.ndarray:
        """float64 (N,)."""
        assert list(chosen) == list(self.lam), "fit on the same memories first"
        return mix(log(self.weight_C), stack(record, chosen))

    def describe(self) -> dict[str, Any]:
        return {"weights": "tuned", "lam": self.lam, "validation_tokens": self.num_tokens}
