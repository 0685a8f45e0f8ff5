"""How many of the true neighbours an index finds."""

# P = probes, N = new keys, D = size of a key

from collections.abc import Callable

import torch
from torch import Tensor

from lit_seqlm.search.exact import search_exact
from lit_seqlm.search.index import BLOCK
from lit_seqlm.search.neighbours import Neighbours, best_first

DEPTH = 1025  # neighbours of a probe that are followed: the largest usual k, and the probe itself

Search = Callable[[Tensor, int], Neighbours]


def even_slots(size: int, num_probes: int) -> Tensor:
    """At most `num_probes` slots, spread evenly over the memory."""
    num_probes = min(size, num_probes)
    return torch.arange(num_probes) * size // max(1, num_probes)


def overlap(own_P: Tensor, truth: Neighbours, found: Neighbours, k: int) -> float | None:
    """Mean share of the k true neighbours among the k found. A probe is no neighbour of its own."""

    def others(slots: list[int], own: int) -> set[int]:
        return set([slot for slot in slots if slot not in (own, -1)][:k])

    hits = total = 0
    rows = zip(own_P.tolist(), truth.slots_MK.tolist(), found.slots_MK.tolist(), strict=True)
    for own, true_slots, found_slots in rows:
        wanted = others(true_slots, own)
        hits += len(wanted & others(found_slots, own))
        total += len(wanted)
    return hits / total if total else None


class Followed:
    """True neighbours of fixed probes, kept up as keys come, where the keys themselves are not kept.

    Begins when all keys so far are still there; a new key is compared with the probes only. If a key that stands
    among the true neighbours is evicted, what comes next after it is no longer known: `recall` is None from then on.

    Args:
        queries_PD: the probes' keys.
        own_P: the probes' own slots.
        truth: their best `DEPTH` neighbours so far.
    """

    def __init__(self, metric: str, queries_PD: Tensor, own_P: Tensor, truth: Neighbours):
        self.metric = metric
        self.queries_PD, self.own_P, self.truth = queries_PD, own_P, truth
        self.broken = False

    @property
    def num_bytes(self) -> int:
        parts = (self.queries_PD, self.own_P, self.truth.measure_MK, self.truth.slots_MK)
        return sum(part.numel() * part.element_size() for part in parts)

    def see(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        """Take account of keys that were written into these slots."""
        if self.broken:
            return
        slots_N = slots_N.to(self.queries_PD.device)
        if torch.isin(self.truth.slots_MK, slots_N).any():
            self.broken = True
            return
        near = search_exact(self.queries_PD, keys_ND.to(self.queries_PD), DEPTH, self.metric, BLOCK)
        measure_PK = torch.cat([self.truth.measure_MK, near.measure_MK], dim=-1)
        slots_PK = torch.cat([self.truth.slots_MK, slots_N[near.slots_MK]], dim=-1)
        self.truth = best_first(measure_PK, slots_PK, self.metric, DEPTH)

    def recall(self, k: int, search: Search) -> float | None:
        """Recall of an index; None if it is not known (see the class) or k is beyond what is followed."""
        if self.broken or k >= DEPTH:
            return None
        return overlap(self.own_P, self.truth, search(self.queries_PD, k + 1), k)

    def state_dict(self) -> dict[str, Tensor | bool]:
        return {
            "queries": self.queries_PD.clone(),
            "own": self.own_P.clone(),
            "measure": self.truth.measure_MK.clone(),
            "slots": self.truth.slots_MK.clone(),
            "broken": self.broken,
        }

    @classmethod
    def from_state(cls, metric: str, state: dict[str, Tensor]) -> "Followed":
        truth = Neighbours(state["measure"], state["slots"])
        followed = cls(metric, state["queries"], state["own"], truth)
        followed.broken = bool(state["broken"])
        return followed
