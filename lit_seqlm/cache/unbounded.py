"""The unbounded cache: all states of the stream, found again by approximate search (Grave, Cisse and Joulin 2017)."""

# N = tokens of a chunk, R = states not in the index yet, K = neighbours, D = hidden size

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.memory import Scores, States
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.errors import UserError
from lit_seqlm.search.store import Store

ROWS = 256  # tokens compared at once with the states that no index holds yet


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
        k = self.widest()
        keys_RD, labels_R = self._waiting(states_ND, words_N)
        before = len(labels_R) - len(words_N)
        parts = []
        for start in range(0, len(words_N), ROWS):
            rows = slice(start, min(start + ROWS, len(words_N)))
            measure_NK, labels_NK = self.store.search(states_ND[rows], k)
            visible = slice(0, before + rows.stop)
            recent_NR = self._compare(states_ND[rows], keys_RD[visible], before + start)
            parts.append(
                self._score_rows(
                    torch.cat([measure_NK, recent_NR], dim=1),
                    torch.cat([labels_NK, labels_R[visible].expand(len(recent_NR), -1)], dim=1),
                    words_N[rows],
                    k,
                )
            )
        return Scores.join(parts)

    def _compare(self, states_ND: Tensor, keys_RD: Tensor, before: int) -> Tensor:
        """Measures to the states that wait; what is not past yet is as far away as can be."""
        dot_NR = states_ND @ keys_RD.T
        if self.metric == "dot":
            measure_NR, far = dot_NR, -torch.inf
        else:
            squares_N1 = states_ND.square().sum(1, keepdim=True)
            measure_NR = (squares_N1 + keys_RD.square().sum(1) - 2 * dot_NR).clamp(min=0)
            far = torch.inf
        row_N1 = torch.arange(len(states_ND), device=dot_NR.device)[:, None] + before
        column_R = torch.arange(len(keys_RD), device=dot_NR.device)
        return measure_NR.masked_fill(column_R >= row_N1, far)

    def _score_rows(
        self, measure_NK: Tensor, labels_NK: Tensor, words_N: Tensor, k: int | None
    ) -> Scores:
        labels_NK = labels_NK.masked_fill(measure_NK.isinf(), -1)
        count = measure_NK.size(1) if k is None else min(k, measure_NK.size(1))
        largest = self.metric == "dot"
        measure_NK, order_NK = measure_NK.topk(count, dim=1, largest=largest, sorted=True)
        return self.weigh(measure_NK, labels_NK.gather(1, order_NK), words_N)

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        self.keys_RD, self.words_R = self._waiting(self.normalizer(hidden_ND), words_N)
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
        self.normalizer.fit(torch.cat([hidden_ND.float() for hidden_ND, _ in states]))

    def state_dict(self) -> dict[str, Any]:
        waiting = {"keys": self.keys_RD, "words": self.words_R, "surprisal": self.surprisal_R}
        return {**super().state_dict(), "waiting": waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        waiting = state["waiting"]
        self.keys_RD, self.words_R = waiting["keys"], waiting["words"]
        self.surprisal_R = waiting["surprisal"]

    def _waiting(self, states_ND: Tensor, words_N: Tensor) -> tuple[Tensor, Tensor]:
        if not len(self.words_R):
            return states_ND, words_N
        keys_RD, words_R = self.keys_RD.to(states_ND.device), self.words_R.to(words_N.device)
        return torch.cat([keys_RD, states_ND]), torch.cat([words_R, words_N])
