"""Which of an epoch's batches are this process's, where several train one model."""

from typing import Any


def share(batches: list[Any], trainer: Any) -> list[Any]:
    """Every ``world_size``-th batch; the last few are repeated so that each rank has as many.

    Ranks that step together must take as many steps, or the first to finish waits for ever.
    """
    if trainer is None or trainer.world_size == 1:
        return batches
    size = trainer.world_size
    even = batches + batches[: -len(batches) % size]
    return even[trainer.global_rank :: size]
