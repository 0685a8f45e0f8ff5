"""The local continuous cache (Grave, Joulin and Usunier, ICLR 2017)."""

# N = tokens of a chunk, W = window, K = W + N remembered states at most, D = hidden size, S = settings

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.kernel import log_prob
from lit_seqlm.cache.memory import ROWS, Memory, Scores, States, after
from lit_seqlm.cache.normalize import Normalizer
from lit_seqlm.errors import UserError

COLD_STARTS = ("immediate", "full_window")


class LocalCache(Memory):
    """p(w) ~ sum over the last `size` states h_i, whose next word was w, of exp(theta h.h_i) (eq. 3).

    A state serves as soon as the word after it was scored: for the word after h_t, those with i < t.

    Args:
        size: of the window, in tokens; null: all that was read.
        theta: flatness; 0 is a unigram cache of the window.
        normalize: of the states: none | l2 | layer_norm | pca.
        cold_start: ``immediate``; or ``full_window``, silent until the window is full, as AWD-LSTM's code has it.
    """

    tunable = ("size", "theta")
    measures = ("highest", "lowest")  # inner products

    def __init__(
        self,
        lam: float,
        size: int | None,
        theta: float,
        normalize: str,
        cold_start: str,
        grid: Mapping[str, Sequence[Any] | None],
    ):
        self.size, self.theta = size, theta
        super().__init__(lam, grid)
        for setting in self.settings:
            if setting["size"] is not None and setting["size"] < 1:
                raise UserError(f"cache.size={setting['size']}: a window holds at least one state.")
        if cold_start not in COLD_STARTS:
            raise UserError(f"cache.cold_start={cold_start}: choose {' or '.join(COLD_STARTS)}.")
        self.cold_start = cold_start
        sizes = [setting["size"] for setting in self.settings]
        self.longest = None if None in sizes else max(sizes)  # also after one setting was chosen
        self.normalizer = Normalizer(normalize)
        self.training_tokens = self.normalizer.training_tokens
        self.keys_WD, self.words_W = torch.empty(0, 0), torch.empty(0, dtype=torch.long)

    def score(self, hidden_ND: Tensor, words_N: Tensor) -> Scores:
        states_ND = self.normalizer(hidden_ND)
        keys_KD, labels_K = after(self.keys_WD, self.words_W, states_ND, words_N)
        before = len(labels_K) - len(words_N)
        parts, longest = [], self.longest
        for start in range(0, len(words_N), ROWS):
            stop = min(start + ROWS, len(words_N))
            first = 0 if longest is None else max(0, before + start - longest)
            visible = slice(first, before + stop)
            parts.append(
                self._score_rows(
                    states_ND[start:stop] @ keys_KD[visible].T,
                    words_N[start:stop, None] == labels_K[None, visible],
                    before + start - first,
                    self.position + start,
                )
            )
        return Scores.join(parts)

    def _score_rows(self, dot_NK: Tensor, match_NK: Tensor, before: int, position: int) -> Scores:
        """Rows whose own states are the last columns; the first row's is column `before`."""
        num_rows, num_keys = dot_NK.shape
        row_N1 = torch.arange(num_rows, device=dot_NK.device)[:, None] + before
        column_K = torch.arange(num_keys, device=dot_NK.device)
        dot_NK.masked_fill_(column_K >= row_N1, -torch.inf)
        nearest_N = dot_NK.amax(dim=1)
        rows = []
        for size, thetas in self._by_size():
            if size is None or size >= before + num_rows:
                seen_NK, match = dot_NK, match_NK
            else:
                low = max(0, before - size)
                outside_NK = column_K[low:] < row_N1 - size
                seen_NK, match = (
                    dot_NK[:, low:].masked_fill(outside_NK, -torch.inf),
                    match_NK[:, low:],
                )
            for theta in thetas:
                # theta 0 times -inf is NaN: what is masked stays so.
                weight_NK = theta * seen_NK if theta else torch.where(seen_NK.isinf(), seen_NK, 0.0)
                log_prob_N = log_prob(weight_NK, match)
                if self.cold_start == "full_window" and size is not None:
                    age_N = position + torch.arange(num_rows, device=dot_NK.device)
                    log_prob_N = log_prob_N.masked_fill(age_N < size, torch.nan)
                rows.append(log_prob_N)
        nearest_N = nearest_N.masked_fill(nearest_N.isinf(), torch.nan)
        return Scores(torch.stack(rows), nearest_N, torch.full_like(nearest_N, torch.nan))

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        states_ND = self.normalizer(hidden_ND)
        keys_KD, labels_K = after(self.keys_WD, self.words_W, states_ND, words_N)
        drop = 0 if self.longest is None else max(0, len(labels_K) - self.longest)
        self.keys_WD, self.words_W = keys_KD[drop:].clone(), labels_K[drop:].clone()

    def reset(self, num_words: int) -> None:
        super().reset(num_words)
        self.keys_WD, self.words_W = torch.empty(0, 0), torch.empty(0, dtype=torch.long)

    def learn(self, states: States, total: int) -> None:
        self.normalizer.learn(states)

    def describe(self) -> dict[str, Any]:
        """Of the longest window of the grid, which is held also when a shorter one was chosen."""
        num_states, num_bytes = len(self.words_W), self.keys_WD.nbytes + self.words_W.nbytes
        per_state = num_bytes / max(1, num_states)
        return {"num_states": num_states, "num_bytes": num_bytes, "bytes_per_state": per_state}

    def state_dict(self) -> dict[str, Any]:
        memory = {"keys": self.keys_WD, "words": self.words_W}
        return {**super().state_dict(), **memory, "normalizer": self.normalizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.keys_WD, self.words_W = state["keys"], state["words"]
        self.normalizer.load_state_dict(state["normalizer"])

    def _by_size(self) -> list[tuple[int | None, list[float]]]:
        """Thetas of each window, in the order of `settings`."""
        thetas = self.grid.get("theta", [self.theta])
        return [(size, list(thetas)) for size in self.grid.get("size", [self.size])]
