"""The parts of a mixture as one array, and their sum in log space."""

# C = components (the static model first, then the memories), N = scored tokens

from collections.abc import Mapping, Sequence

import numpy as np

from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError

ROUNDING = 1e-9  # by how much weights such as 0.1 + 0.2 + 0.7 may sum to more than 1


def stack(record: Record, chosen: Mapping[str, int]) -> np.ndarray:
    """log p(target) of every component, float64 (C, N), one setting of each memory.

    An empty memory says what the static model says: its weight then goes there, whatever it is.
    """
    log_p_CN = np.empty((1 + len(chosen), len(record)))
    log_p_CN[0] = record.static_N
    for component, (memory, row) in enumerate(chosen.items(), start=1):
        log_p_N = record.memories[memory][row]
        log_p_CN[component] = np.where(np.isnan(log_p_N), record.static_N, log_p_N)
    return log_p_CN


def mix(log_weights: np.ndarray, log_p_CN: np.ndarray) -> np.ndarray:
    """log sum_c w_c p_c, (N,); weights are (C,) or (C, N). A weight of 0 changes no bit."""
    mixed_N = log_weights[0] + log_p_CN[0]
    for log_weight, log_p_N in zip(log_weights[1:], log_p_CN[1:], strict=True):
        mixed_N = np.logaddexp(mixed_N, log_weight + log_p_N)
    return mixed_N


def ratios(log_p_CN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p_c / max_c p_c, log max_c p_c): sums without overflow.

    Where no component gives the target any mass the ratios are 0 and the maximum is -inf.
    """
    peak_N = log_p_CN.max(0)
    return np.exp(log_p_CN - np.where(np.isfinite(peak_N), peak_N, 0)), peak_N


def log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm, with -inf for 0 and no warning."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def option(memory: str, memories: Sequence[str]) -> str:
    """What one types to set a memory's weight."""
    return "cache.lam" if len(memories) == 1 else f"cache.components.{memory}.lam"


def weights(lam: Mapping[str, float], memories: Sequence[str]) -> np.ndarray:
    """(C,): the static model has what the memories leave of 1.

    Raises:
        UserError: if a memory has no weight, a weight is not within 0 and 1, or their sum is above 1.
    """
    for memory in memories:
        name = option(memory, memories)
        if memory not in lam:
            raise UserError(
                f"{name} is not set: every memory needs a weight. Try {name}=0.1, or let "
                "task.weights=tuned find it."
            )
        if not 0 <= lam[memory] <= 1:
            raise UserError(
                f"{name}={lam[memory]}: a weight is at least 0 and at most 1. Try {name}=0.1."
            )
    total = sum(lam[memory] for memory in memories)
    if total > 1 + ROUNDING:
        given = ", ".join(f"{option(memory, memories)}={lam[memory]}" for memory in memories)
        raise UserError(
            f"{given}: the weights of the memories sum to {total:g}, at most 1 can be given away (the "
            "static model has the rest). Try smaller ones."
        )
    return np.array([max(0.0, 1 - total), *(lam[memory] for memory in memories)])
