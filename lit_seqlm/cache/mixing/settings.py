"""Which setting of each memory is best on validation."""

# N = scored tokens

from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_seqlm.cache.mixing.components import log, mix, stack
from lit_seqlm.cache.mixing.likelihood import best_weight
from lit_seqlm.cache.record import Record
from lit_seqlm.metrics.perplexity import exp


@dataclass(frozen=True)
class TriedSetting:
    """A row of one memory with the static model, and what it gives on validation with its own best weight."""

    memory: str
    row: int
    setting: dict[str, Any]
    lam: float
    nll: float
    ppl: float


def best_settings(valid: Record) -> tuple[dict[str, int], list[TriedSetting]]:
    """For each memory alone with the static model, the row with the lowest nll; and all that was tried.

    Each setting gets its own best weight, so that none loses because its weight was another's. Of
    equals the first wins.
    """
    chosen, table = {}, []
    for memory, settings in valid.settings.items():
        tried = [_try(valid, memory, row) for row in range(len(settings))]
        chosen[memory] = min(tried, key=lambda one: one.nll).row
        table += tried
    return chosen, table


def _try(valid: Record, memory: str, row: int) -> TriedSetting:
    log_p_CN = stack(valid, {memory: row})
    lam = best_weight(log_p_CN[0], log_p_CN[1])
    nll = float(-mix(log(np.array([1 - lam, lam])), log_p_CN).mean()) if len(valid) else 0.0
    return TriedSetting(memory, row, dict(valid.settings[memory][row]), lam, nll, exp(nll))
