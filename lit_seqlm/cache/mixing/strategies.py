"""How memories and the static model are weighed: the words of `task.weights`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lit_seqlm.cache.mixing.em import OnlineEM
from lit_seqlm.cache.mixing.fixed import Fixed
from lit_seqlm.cache.mixing.gate import Gate
from lit_seqlm.cache.mixing.online import Online
from lit_seqlm.cache.mixing.tuned import Tuned
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError, did_you_mean


class Mixing(Protocol):
    """Weighs what a record holds; `chosen` says which setting (row) of each memory is used.

    A probability at t depends on the targets before t alone, and for one given past the
    probabilities of all words sum to one if those of each component do.
    """

    def fit(self, valid: Record, chosen: Mapping[str, int]) -> None:
        """Learn from validation what is learnt beforehand."""

    def log_prob(self, record: Record, chosen: Mapping[str, int]) -> np.ndarray:
        """float64 (N,): log p of each target. The record is one stream from its beginning."""

    def describe(self) -> dict[str, Any]:
        """What was found and on how much, in plain values, for the evaluation card."""


@dataclass(frozen=True)
class MixingOptions:
    """All numbers that a strategy may need; each reads its own.

    Args:
        lam: fixed: the weight of each memory. em: where they start.
        step: online: distance of the grid's points.
        max_experts: online: size of the grid at most.
        start_count: em: how many tokens the start is worth.
        penalty: gate: on the squares of its coefficients.
    """

    lam: Mapping[str, float]
    step: float
    max_experts: int
    start_count: float
    penalty: float


MIXINGS: dict[str, Callable[[MixingOptions], Mixing]] = {
    "fixed": lambda options: Fixed(options.lam),
    "tuned": lambda options: Tuned(),
    "online": lambda options: Online(options.step, options.max_experts),
    "em": lambda options: OnlineEM(options.lam, options.start_count),
    "gate": lambda options: Gate(options.penalty),
}


def make_mixing(name: str, options: MixingOptions) -> Mixing:
    """The strategy of that name.

    Raises:
        UserError: with the nearest name if there is none; and what the strategy itself refuses.
    """
    if name not in MIXINGS:
        raise UserError(f"task.weights={name}: no such strategy. {did_you_mean(name, MIXINGS)}")
    return MIXINGS[name](options)
