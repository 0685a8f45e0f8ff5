"""The unbounded cache: all states of the stream, found again by approximate search (Grave, Cisse and Joulin 2017)."""

# N = tokens of a chunk, R = states not in the index yet, K = neighbours, D = hidden size

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.memory import ROWS, Scores, States, after
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.errors import UserError
from lit_seqlm.search.neighbours import best_first
from lit_seqlm.search.store import Store

FIRST_WAITING = 2**30  # the slot of the first state that waits, behind all slots of a store
ROUNDING = 1e-13  # of a square, in float64


class UnboundedCache(NearestMemory):
    """The k nearest of all past states. States enter the index `period` tokens at a time, after they were scored.

    Those that wait are searched exactly, by position: the state at i serves for the word after h_t iff i < t. As the
    index changes at multiples of `period` only, the numbers do not depend on how a stream is cut.
    """

    def __init__(
        self,
        lam: float,
        k: int | None,
        kernel: str,
        bandwidth: str,
        bandwidth_scale: float,
        theta: float,
        normalize: str,
        store: Store,
        period: int,
        grid: Mapping[str, Sequence[Any] | None],
    ):
        super().__init__(lam, k, kernel, bandwidth, bandwidth_scale, theta, normalize, store, grid)
        if period < 1:
            raise UserError(f"cache.period={period}: states are inserted at least one at a time.")
        self.period = period
        self.training_tokens = self.normalizer.training_tokens
        self._forget()

    def _forget(self) -> None:
        self.keys_RD, self.words_R = torch.empty(0, 0), torch.empty(0, dtype=torch.long)
        self.surprisal_R = torch.empty(0)

    def score(self, hidden_ND: Tensor, words_N: Tensor) -> Scores:
        states_ND = self.normalizer(hidden_ND)
        keys_RD, labels_R = after(self.keys_RD, self.words_R, states_ND, words_N)
        before = len(labels_R) - len(words_N)
        parts = []
        for start in range(0, len(words_N), ROWS):
            rows = slice(start, min(start + ROWS, len(words_N)))
            near = self.store.nearest(states_ND[rows], self.width)
            visible = slice(0, before + rows.stop)
            recent_NR = self._compare(states_ND[rows], keys_RD[visible], before + start)
            place_R = FIRST_WAITING + torch.arange(recent_NR.size(1), device=recent_NR.device)
            slots_NR = place_R.expand(len(recent_NR), -1).masked_fill(recent_NR.isinf(), -1)
            near = best_first(
                torch.cat([near.measure_MK, recent_NR], dim=1),
                torch.cat([near.slots_MK, slots_NR], dim=1),
                self.metric,
                self.width,
            )
            labels_NK = self._labels(near.slots_MK, labels_R)
            parts.append(self.weigh(near.measure_MK, labels_NK, words_N[rows]))
        return Scores.join(parts)

    def _labels(self, slots_NK: Tensor, labels_R: Tensor) -> Tensor:
        """The words of what was found, in the store or among those that wait."""
        waits_NK = slots_NK >= FIRST_WAITING
        waiting_NK = labels_R[(slots_NK - FIRST_WAITING).clamp(0, len(labels_R) - 1)]
        return torch.where(
            waits_NK, waiting_NK, self.store.words(slots_NK.masked_fill(waits_NK, -1))
        )

    def _compare(self, states_ND: Tensor, keys_RD: Tensor, before: int) -> Tensor:
        """Measures to the states that wait; what is not past yet is as far away as can be.

        In float64: the square is expanded, and in float32 that would lose the distance of near states.
        """
        states_ND, keys_RD = states_ND.double(), keys_RD.double()
        dot_NR = states_ND @ keys_RD.T
        if self.metric == "dot":
            measure_NR, far = dot_NR, -torch.inf
        else:
            squares_N1 = states_ND.square().sum(1, keepdim=True)
            squares_NR = squares_N1 + keys_RD.square().sum(1)
            measure_NR, far = squares_NR - 2 * dot_NR, torch.inf
            measure_NR = measure_NR.masked_fill(measure_NR < ROUNDING * squares_NR, 0)
        row_N1 = torch.arange(len(states_ND), device=dot_NR.device)[:, None] + before
        column_R = torch.arange(len(keys_RD), device=dot_NR.device)
        return measure_NR.masked_fill(column_R >= row_N1, far).float()

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        states_ND = self.normalizer(hidden_ND)
        self.keys_RD, self.words_R = after(self.keys_RD, self.words_R, states_ND, words_N)
        surprisal_N = -static_log_prob_N.float()
        self.surprisal_R = torch.cat([self.surprisal_R.to(surprisal_N.device), surprisal_N])
        assert self.period is not None
        if (self.position + len(words_N)) % self.period == 0:
            self.store.insert(self.keys_RD, self.words_R, self.surprisal_R)
            self._forget()

    def reset(self, num_words: int) -> None:
        super().reset(num_words)
        self.store.reset()
        self._forget()

    def learn(self, states: States, total: int) -> None:
        self.normalizer.learn(states)

    def state_dict(self) -> dict[str, Any]:
        waiting = {"keys": self.keys_RD, "words": self.words_R, "surprisal": self.surprisal_R}
        return {**super().state_dict(), "waiting": waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        waiting = state["waiting"]
        self.keys_RD, self.words_R = waiting["keys"], waiting["words"]
        self.surprisal_R = waiting["surprisal"]
