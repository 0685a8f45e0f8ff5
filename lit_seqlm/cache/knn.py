"""kNN-LM: the nearest states of the training set (Khandelwal et al., ICLR 2020)."""

# N = tokens of a chunk, K = neighbours, D = hidden size

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.memory import ROWS, Scores, States
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.cache.normalize import PCA_TOKENS
from lit_seqlm.errors import UserError
from lit_seqlm.search.snapshot import load, save
from lit_seqlm.search.store import CHANGEABLE, Store

FILE = "store.memory"


class KNNStore(NearestMemory):
    """p(w) ~ sum over the k nearest training states, whose next word was w, of exp(-d^2 / theta) (eq. 2).

    The store is built from the model's own training text once, and does not change while a stream is read.

    Args:
        training_tokens: so many, from columns of the text that are read side by side; null: all of it.
        folder: keeps the finished store for the next evaluation of the same weights; null: it is built every time.
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
        training_tokens: int | None,
        folder: str | None,
        grid: Mapping[str, Sequence[Any] | None],
    ):
        super().__init__(lam, k, kernel, bandwidth, bandwidth_scale, theta, normalize, store, grid)
        if training_tokens is not None and training_tokens < 1:
            raise UserError(
                f"cache.training_tokens={training_tokens}: at least 1, or null for all."
            )
        self.training_tokens = training_tokens
        self.folder = Path(folder) if folder else None

    @property
    def name(self) -> str:
        return "knn"

    def score(self, hidden_ND: Tensor, words_N: Tensor) -> Scores:
        states_ND = self.normalizer(hidden_ND)
        parts = []
        for start in range(0, len(words_N), ROWS):
            rows = slice(start, start + ROWS)
            measure_NK, labels_NK = self.store.search(states_ND[rows], self.width)
            parts.append(self.weigh(measure_NK, labels_NK, words_N[rows]))
        return Scores.join(parts)

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        pass

    def learn(self, states: States, total: int) -> None:
        held: list[tuple[Tensor, Tensor]] = []
        for hidden_ND, words_N in states:
            if self.normalizer.training_tokens and self.normalizer.mean_D is None:
                held.append((hidden_ND.float(), words_N))
                if sum(len(words) for _, words in held) < min(PCA_TOKENS, total):
                    continue
                self._fit(held)
                held = []
                continue
            self._insert(hidden_ND, words_N)
        if held:
            self._fit(held)

    def _fit(self, held: list[tuple[Tensor, Tensor]]) -> None:
        """Axes from the first states, which are then remembered like the others."""
        self.normalizer.fit(torch.cat([hidden_ND for hidden_ND, _ in held]))
        for hidden_ND, words_N in held:
            self._insert(hidden_ND, words_N)

    def _insert(self, hidden_ND: Tensor, words_N: Tensor) -> None:
        self.store.insert(self.normalizer(hidden_ND), words_N, torch.zeros(len(words_N)))

    def restore(self, identity: Mapping[str, Any]) -> bool:
        """Whether a kept store of the same weights and options was there, and is loaded."""
        if self.folder is None or not (self.folder / FILE).exists():
            return False
        self._load(load(self.folder / FILE, self._identity(identity)))
        return True

    def keep(self, identity: Mapping[str, Any]) -> None:
        """Write the finished store for the next evaluation, if a folder was given."""
        if self.folder is not None:
            state = {"store": self.store.state_dict(), "normalizer": self.normalizer.state_dict()}
            save(state, self.folder / FILE, self._identity(identity))

    def _load(self, state: dict[str, Any]) -> None:
        self.store.load_state_dict(state["store"])
        self.normalizer.load_state_dict(state["normalizer"])

    def _identity(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        options = {k: v for k, v in asdict(self.store.options).items() if k not in CHANGEABLE}
        return {**identity, "normalize": self.normalizer.how, **options}

    def state_dict(self) -> dict[str, Any]:
        """The place alone: the store is made from training text, not from the stream."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
