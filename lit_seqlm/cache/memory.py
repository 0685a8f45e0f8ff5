"""What every memory of a stream is: it scores, and only then learns what it has scored."""

# N = tokens of a chunk, D = hidden size, S = settings, K = neighbours

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.cache.dynamic import DynamicEvaluation
from lit_seqlm.errors import UserError, did_you_mean

ROWS = 256  # tokens scored at once, which bounds what is compared with a large memory
States = Iterator[tuple[Tensor, Tensor]]  # hidden_ND and the words that followed them, words_N


@dataclass
class Scores:
    """What a memory says of N tokens.

    Attributes:
        log_prob_SN: log p of each token, a row for each setting. -inf: the memory gives it no mass;
            NaN: the memory is empty and has nothing to say.
        nearest_N, farthest_N: the closest and the k-th remembered state, in the memory's own measure; NaN if none.
    """

    log_prob_SN: Tensor
    nearest_N: Tensor
    farthest_N: Tensor

    @staticmethod
    def join(parts: Sequence["Scores"]) -> "Scores":
        """Of one chunk after the other."""
        return Scores(
            torch.cat([part.log_prob_SN for part in parts], dim=1),
            torch.cat([part.nearest_N for part in parts]),
            torch.cat([part.farthest_N for part in parts]),
        )


class Memory:
    """A distribution over words that is made of what was read.

    ``step`` is all that a caller needs, and the only way to use a memory that cannot leak: it scores a chunk from
    what came before each of its tokens, then remembers the chunk. The numbers do not depend on how a stream is cut.
    Subclasses give `score`, `update` and `reset`.

    Args:
        lam: the memory's weight where weights are fixed; the static model has the rest.
        grid: lists of values for some of `tunable`; null or empty: only
            the memory's own. Every combination is scored in the same pass.
    """

    tunable: tuple[str, ...] = ()
    period: int | None = None  # a memory that changes its structure does so at multiples of it
    training_tokens: int | None = 0  # read by `learn` before the stream; null: all
    measures = ("nearest", "farthest")  # what the scores' two measures are called: here, distances

    def __init__(self, lam: float, grid: Mapping[str, Sequence[Any] | None]):
        if not 0 <= lam <= 1:
            raise UserError(f"cache.lam={lam}: a weight is between 0 and 1.")
        for key in grid:
            if key not in self.tunable:
                raise UserError(
                    f"cache.grid.{key}: there is nothing of that name to tune. {did_you_mean(key, self.tunable)}"
                )
            if isinstance(grid[key], str | int | float):
                raise UserError(
                    f"cache.grid.{key}={grid[key]}: it takes a list. Say cache.grid.{key}=[{grid[key]}]."
                )
        self.lam = lam
        self.grid = {key: list(values) for key, values in grid.items() if values}
        self.position = 0  # tokens remembered since the last reset

    @property
    def memories(self) -> dict[str, "Memory"]:
        """The memories to be mixed, by name."""
        return {self.name: self}

    @property
    def adapter(self) -> DynamicEvaluation | None:
        """What changes the model's own weights as it reads, if anything does."""
        return None

    @property
    def name(self) -> str:
        return type(self).__name__.removesuffix("Cache").lower()

    @property
    def settings(self) -> list[dict[str, Any]]:
        """One for each row of the scores: the values of `tunable`."""
        values = {key: self.grid.get(key, [getattr(self, key)]) for key in self.tunable}
        return [dict(zip(values, point, strict=True)) for point in product(*values.values())]

    def choose(self, setting: Mapping[str, Any]) -> None:
        """Keep one setting and forget the others."""
        for key, value in setting.items():
            setattr(self, key, value)
        self.grid = {}

    def step(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> Scores:
        """Score a chunk, then remember it.

        Args:
            hidden_ND: the states from which the words were predicted.
            words_N: what came.
            static_log_prob_N: what the model without a memory gave it.

        Raises:
            UserError: for states that are not finite.
        """
        _check_finite(hidden_ND)
        parts, start, total = [], 0, len(words_N)
        while start < total:
            room = (
                total - start if self.period is None else self.period - self.position % self.period
            )
            piece = slice(start, min(start + room, total))
            parts.append(self.score(hidden_ND[piece], words_N[piece]))
            self.update(hidden_ND[piece], words_N[piece], static_log_prob_N[piece])
            self.position += piece.stop - piece.start
            start = piece.stop
        return Scores.join(parts)

    def score(self, hidden_ND: Tensor, words_N: Tensor) -> Scores:
        """Token n of the chunk from all that was remembered and from the chunk's tokens before n."""
        raise NotImplementedError

    def update(self, hidden_ND: Tensor, words_N: Tensor, static_log_prob_N: Tensor) -> None:
        """Remember a chunk that was scored."""
        raise NotImplementedError

    def reset(self, num_words: int) -> None:
        """Forget the stream; the next one has so many words in its vocabulary."""
        self.position = 0

    def learn(self, states: States, total: int) -> None:
        """Read training states, before any stream; only where `training_tokens` asks for it."""

    def describe(self) -> dict[str, Any]:
        """For the evaluation card: bytes held, and the like."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which a stream goes on to the same numbers."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def after(
    keys_KD: Tensor, words_K: Tensor, states_ND: Tensor, words_N: Tensor
) -> tuple[Tensor, Tensor]:
    """What is remembered and, behind it, a chunk; on the chunk's device."""
    if not len(words_K):
        return states_ND, words_N
    keys_KD, words_K = keys_KD.to(states_ND.device), words_K.to(words_N.device)
    return torch.cat([keys_KD, states_ND]), torch.cat([words_K, words_N])


def _check_finite(hidden_ND: Tensor) -> None:
    if not torch.isfinite(hidden_ND).all():
        bad = int((~torch.isfinite(hidden_ND)).any(dim=1).sum())
        raise UserError(
            f"cache: {bad} of {len(hidden_ND)} states hold NaN or infinity, so nothing is near them. The weights are "
            "broken, or the precision too low (trainer.precision=32-true)."
        )
