"""Which of an epoch's batches are this process's, where several train one model."""

from dataclasses import dataclass
from typing import Any


def place(trainer: Any) -> tuple[int, int]:
    """(number of this process, how many there are)."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


@dataclass(frozen=True)
class Share:
    """One process's batches of an epoch: as many as every other process has.

    Processes that step together must take as many steps, or the first to finish waits for ever. So
    some have a batch more than there was to share: it keeps them in step and is scored nowhere
    (`Batch.silenced`), and every sequence counts once.

    Attributes:
        batches: this process's.
        numbers: where each of them stands among all batches of the epoch.
        num_scored: so many count, the first ones.
    """

    batches: list[Any]
    numbers: list[int]
    num_scored: int

    def __len__(self) -> int:
        return len(self.batches)


def share(batches: list[Any], trainer: Any) -> Share:
    """Every ``world_size``-th batch; all of them where one process trains."""
    rank, size = place(trainer)
    own = list(range(rank, len(batches), size))
    num_steps = -(-len(batches) // size)
    numbers = own + [0] * (num_steps - len(own))
    return Share([batches[number] for number in numbers], numbers, len(own))
