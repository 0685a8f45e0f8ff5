"""Word counts of the stream so far."""

# N = tokens of a chunk, V = words

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.memory import Memory, Scores


class UnigramCache(Memory):
    """p(w) = times w was read / words read (Kuhn and De Mori 1990; the baseline of Grave et al. 2017)."""

    def __init__(self, lam: float, grid: Mapping[str, Sequence[Any] | None]):
        super().__init__(lam, grid)
        self.count_V = torch.zeros(0, dtype=torch.long)

    def score(self, hidden_ND: Tensor, words_N: Tensor) -> Scores:
        seen_N = self.count_V.to(words_N.device)[words_N] + _earlier_in(words_N)
        total_N = self.position + torch.arange(len(words_N), device=words_N.device)
        log_prob_N = (
            seen_N.double().log() - total_N.double().log()
        )  # 0 / 0, the first token, is NaN
        nothing_N = torch.full_like(log_prob_N, torch.nan)
        return Scores(log_prob_N[None].float(), nothing_N, nothing_N)

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        self.count_V += torch.bincount(words_N.cpu(), minlength=len(self.count_V))

    def reset(self, num_words: int) -> None:
        super().reset(num_words)
        self.count_V = torch.zeros(num_words, dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "count": self.count_V}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.count_V = state["count"]


def _earlier_in(words_N: Tensor) -> Tensor:
    """How often each word stands before its place in the same chunk."""
    order_N = words_N.argsort(stable=True)
    sorted_N = words_N[order_N]
    place_N = torch.arange(len(words_N), device=words_N.device)
    first_N = torch.searchsorted(sorted_N, sorted_N)
    return torch.empty_like(place_N).scatter_(0, order_N, place_N - first_N)
