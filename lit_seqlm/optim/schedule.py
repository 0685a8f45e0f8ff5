"""Learning-rate schedules that torch does not have under one name."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant_then_decay(optimizer: Optimizer, constant_epochs: int, factor: float) -> LambdaLR:
    """The full rate for `constant_epochs` epochs, then times `factor` at each (Zaremba et al. 2014)."""
    return LambdaLR(optimizer, lambda epoch: factor ** max(0, epoch + 1 - constant_epochs))


def warmup_cosine(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float
) -> LambdaLR:
    """Linear rise over `warmup_steps`, then a half cosine down to `floor` times the rate at `total_steps`."""

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, scale)
