"""Which states stay when the memory is full. Each policy says the slot of every new state, or -1: not kept.

A state is known by its absolute number in the stream, so that a policy decides alike however the stream is cut.
"""

# N = new states, S = slots

import heapq
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.errors import UserError, did_you_mean


class Eviction(Protocol):
    """A policy. A slot may be named twice in one answer: the later state has it."""

    def place(self, first: int, surprisal_N: np.ndarray) -> np.ndarray:
        """Slots (N,) int64 of the states number first, first + 1, ...; -1 for a state that is not kept."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...

    @property
    def num_bytes(self) -> int: ...


class KeepAll:
    """No state leaves; a state's slot is its number."""

    num_bytes = 0

    def place(self, first: int, surprisal_N: np.ndarray) -> np.ndarray:
        return np.arange(first, first + len(surprisal_N))

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing is remembered."""


class OldestOut(KeepAll):
    """A ring: state n has slot n mod capacity."""

    def __init__(self, capacity: int):
        self.capacity = capacity

    def place(self, first: int, surprisal_N: np.ndarray) -> np.ndarray:
        return np.arange(first, first + len(surprisal_N)) % self.capacity


class Reservoir(KeepAll):
    """A uniform sample of all states so far (Vitter's algorithm R, ACM TOMS 1985).

    State n >= capacity draws j uniformly from 0..n and takes slot j if there is one. The draw is a hash of (seed, n)
    (splitmix64: Steele, Lea and Flood, 2014), not the next number of a generator that would have to be carried along.
    """

    def __init__(self, capacity: int, seed: int):
        self.capacity, self.seed = capacity, seed

    def place(self, first: int, surprisal_N: np.ndarray) -> np.ndarray:
        numbers_N = np.arange(first, first + len(surprisal_N))
        drawn_N = (uniform(self.seed, numbers_N) * (numbers_N + 1)).astype(np.int64)
        slots_N = np.where(numbers_N < self.capacity, numbers_N, drawn_N)
        return np.where(slots_N < self.capacity, slots_N, -1)


def uniform(seed: int, numbers_N: np.ndarray) -> np.ndarray:
    """Doubles in [0, 1): the top 53 bits of splitmix64's output number n of the stream `seed`."""
    start = seed * 0xD1342543DE82EF95 % 2**64
    mixed = np.uint64(start) + (numbers_N.astype(np.uint64) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class LeastSurprisingOut:
    """Keeps the states whose next token the static model predicted worst; among equals the newer ones.

    One state after another, as through a heap by (surprisal, number). N new states push out at most the N lowest, so
    those alone go through a heap, chosen by a partition in O(S): nothing but two arrays is kept.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.surprisal_S = np.empty(0, dtype=np.float32)
        self.numbers_S = np.empty(0, dtype=np.int64)

    @property
    def num_bytes(self) -> int:
        return self.surprisal_S.nbytes + self.numbers_S.nbytes

    def place(self, first: int, surprisal_N: np.ndarray) -> np.ndarray:
        surprisal_N = surprisal_N.astype(np.float32)
        numbers_N = np.arange(first, first + len(surprisal_N))
        size = len(self.surprisal_S)
        free = min(self.capacity - size, len(surprisal_N))
        self.surprisal_S = np.concatenate([self.surprisal_S, surprisal_N[:free]])
        self.numbers_S = np.concatenate([self.numbers_S, numbers_N[:free]])
        slots_N = np.full(len(surprisal_N), -1, dtype=np.int64)
        slots_N[:free] = np.arange(size, size + free)
        if free < len(surprisal_N):
            slots_N[free:] = self._push_out(surprisal_N[free:], numbers_N[free:])
        return slots_N

    def _push_out(self, surprisal_N: np.ndarray, numbers_N: np.ndarray) -> np.ndarray:
        lowest = _lowest(self.surprisal_S, self.numbers_S, min(len(surprisal_N), self.capacity))
        columns = (self.surprisal_S[lowest], self.numbers_S[lowest], lowest)
        heap = list(zip(*(column.tolist() for column in columns), strict=True))
        heapq.heapify(heap)
        slots_N = np.full(len(surprisal_N), -1, dtype=np.int64)
        pairs = zip(surprisal_N.tolist(), numbers_N.tolist(), strict=True)
        for position, (surprisal, number) in enumerate(pairs):
            if (surprisal, number) > heap[0][:2]:
                slot = heap[0][2]
                heapq.heapreplace(heap, (surprisal, number, slot))
                slots_N[position] = slot
        for surprisal, number, slot in heap:
            self.surprisal_S[slot], self.numbers_S[slot] = surprisal, number
        return slots_N

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "surprisal": torch.from_numpy(self.surprisal_S.copy()),
            "numbers": torch.from_numpy(self.numbers_S.copy()),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.surprisal_S = state["surprisal"].cpu().numpy().copy()
        self.numbers_S = state["numbers"].cpu().numpy().copy()


def _lowest(surprisal_S: np.ndarray, numbers_S: np.ndarray, count: int) -> np.ndarray:
    """Slots of the `count` lowest by (surprisal, number), in O(S)."""
    edge = np.partition(surprisal_S, count - 1)[count - 1]
    below, equal = np.flatnonzero(surprisal_S < edge), np.flatnonzero(surprisal_S == edge)
    oldest = equal[np.argsort(numbers_S[equal], kind="stable")]
    return np.concatenate([below, oldest[: count - len(below)]])


def make_eviction(evict: str, capacity: int | None, seed: int) -> Eviction:
    """The policy that `cache.store.evict` names.

    Raises:
        UserError: if there is no such policy, or it and `cache.store.capacity` do not go together.
    """
    words = ("none", "fifo", "reservoir", "surprisal")
    if evict not in words:
        raise UserError(f"there is no cache.store.evict={evict}. {did_you_mean(evict, words)}")
    if (capacity is None) != (evict == "none"):
        said = "null" if capacity is None else capacity
        raise UserError(
            f"cache.store.evict={evict} with cache.store.capacity={said}: a memory with a capacity must say which "
            "states leave. Try cache.store.capacity=100000 cache.store.evict=fifo (or reservoir, surprisal), or "
            "cache.store.capacity=null cache.store.evict=none."
        )
    if capacity is None:
        return KeepAll()
    if capacity < 1:
        raise UserError(
            f"cache.store.capacity={capacity}: at least 1 state, or null. "
            "Try cache.store.capacity=null cache.store.evict=none."
        )
    if evict == "fifo":
        return OldestOut(capacity)
    return Reservoir(capacity, seed) if evict == "reservoir" else LeastSurprisingOut(capacity)
