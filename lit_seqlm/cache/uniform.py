"""The same for every word: what is left for a word that nobody expected."""

# N = tokens of a chunk

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.memory import Memory, Scores


class UniformCache(Memory):
    """p(w) = 1 / |V|, the last term of Grave, Cisse and Joulin 2017 (equation unverified).

    |V| counts the words of the model and the new words of the stream, as the paper's does, so it knows the test
    vocabulary. ``task.num_words`` fixes it in advance.
    """

    def __init__(self, lam: float, grid: Mapping[str, Sequence[Any] | None]):
        super().__init__(lam, grid)
        self.num_words = 1

    def score(self, hidden_ND: Tensor, words_N: Tensor) -> Scores:
        nothing_N = torch.full((len(words_N),), torch.nan)
        return Scores(
            torch.full((1, len(words_N)), -math.log(self.num_words)), nothing_N, nothing_N
        )

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        pass

    def reset(self, num_words: int) -> None:
        super().reset(num_words)
        self.num_words = num_words

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "num_words": self.num_words}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.num_words = state["num_words"]
