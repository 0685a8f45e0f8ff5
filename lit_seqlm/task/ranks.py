"""What processes that train one model must agree on: the mean over all predictions, when to save, where each stands."""

from typing import Any

import torch
import torch.distributed as distributed
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.objective.loss import Loss


def num_ranks() -> int:
    """Processes that train together."""
    running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if running else 1


def total(value: Tensor) -> Tensor:
    """Sum over all processes."""
    if num_ranks() == 1:
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value


def step_loss(loss: Loss) -> Tensor:
    """What to differentiate so that a step follows the mean over the predictions of all processes.

    Strategies average gradients over the R processes. With sums S_r over N_r predictions, the gradient
    of sum_r S_r / sum_r N_r is the average of those of R S_r / sum_r N_r: exact, whatever N_r.
    """
    ranks = num_ranks()
    if ranks == 1:
        return loss.mean
    count = total(torch.tensor(float(loss.count), device=loss.sum.device))
    return loss.sum * (ranks / count.clamp(min=1))


def any_rank(said: bool, device: torch.device) -> bool:
    """Whether any process says so: what one does alone, the others would wait for."""
    if num_ranks() == 1:
        return said
    return bool(total(torch.tensor(float(said), device=device)) > 0)


def of_all_ranks(mine: dict[str, Any]) -> dict[str, Any]:
    """What each process needs to go on, for a checkpoint; where there is one process, its own as it is."""
    if num_ranks() == 1:
        return mine
    gathered: list[Any] = [None] * num_ranks()
    distributed.all_gather_object(gathered, move_data_to_device(mine, "cpu"))
    return {"ranks": gathered}


def of_this_rank(saved: dict[str, Any]) -> dict[str, Any]:
    """This process's part of what `of_all_ranks` gave.

    Raises:
        UserError: there were more or fewer processes.
    """
    parts = saved.get("ranks", [saved])
    if len(parts) != num_ranks():
        raise UserError(
            f"this run was trained by {len(parts)} processes, now there are {num_ranks()}. Say "
            f"trainer.devices={len(parts)} to continue it."
        )
    return parts[distributed.get_rank() if num_ranks() > 1 else 0]
