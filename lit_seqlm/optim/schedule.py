"""Learning-rate schedules that torch does not have under one name."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_seqlm.errors import UserError

INTERVALS = ("step", "epoch", "val")


class Schedule:
    """A torch schedule and when it moves: each ``step``, each ``epoch``, or each epoch by the ``val`` number.

    Args:
        interval: one of the three.
        make: gives the schedule for an optimizer.
    """

    def __init__(self, interval: str, make: Callable[..., Any]):
        if interval not in INTERVALS:
            raise UserError(f"scheduler.interval={interval}: choose one of {', '.join(INTERVALS)}")
        self.interval, self.make = interval, make
        self.inner: Any = None

    def start(self, optimizer: Optimizer, count_steps: Callable[[], int]) -> None:
        """Begin; `count_steps` tells how many steps the run will take, which few schedules ask."""
        self.inner = self.make(optimizer)

    def after_step(self) -> None:
        if self.interval == "step":
            self.inner.step()

    def after_epoch(self, value: float) -> None:
        """`value` is the epoch's monitored validation number."""
        if self.interval == "epoch":
            self.inner.step()
        elif self.interval == "val":
            self.inner.step(value)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


class NoSchedule(Schedule):
    """A constant learning rate."""

    def __init__(self) -> None:
        super().__init__("step", lambda optimizer: LambdaLR(optimizer, lambda step: 1.0))


class RunSchedule(Schedule):
    """A schedule of the run's own length: `make` is given ``total_steps`` too, and moves each step."""

    def __init__(self, make: Callable[..., Any]):
        super().__init__("step", make)

    def start(self, optimizer: Optimizer, count_steps: Callable[[], int]) -> None:
        self.inner = self.make(optimizer, total_steps=count_steps())


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


def warmup_linear(
    optimizer: Optimizer, warmup_steps: int, total_steps: int, floor: float
) -> LambdaLR:
    """Linear rise over `warmup_steps`, then a line down to `floor` times the rate at `total_steps`, and level."""

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        left = (total_steps - step) / max(1, total_steps - warmup_steps)
        return floor + (1 - floor) * max(0.0, left)

    return LambdaLR(optimizer, scale)


def warmup_share_cosine(
    optimizer: Optimizer, warmup_share: float, total_steps: int, floor: float
) -> LambdaLR:
    """`warmup_cosine` with its rise as a share of all steps."""
    return warmup_cosine(optimizer, max(1, round(warmup_share * total_steps)), total_steps, floor)
