"""SGD that turns into averaged SGD when validation stops improving (Merity et al. 2018, algorithm 1)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lit_seqlm.errors import UserError


def nonmonotone(history: list[float], value: float, patience: int) -> bool:
    """Whether `value` is worse than the best of the history without its last `patience` entries."""
    return len(history) > patience and value > min(history[:-patience])


class NTASGD(torch.optim.SGD):
    """SGD until the non-monotone trigger fires, then the running mean of the iterates, at the same learning rate.

    The history, the switch and the averages are part of the optimizer's state, so they resume with it.

    Args:
        nonmono: validations the trigger looks back over (n in the paper).
        switch_epoch: average from this epoch on instead of waiting for the trigger; 0: from the first step.
        asgd_compat: do as ``torch.optim.ASGD(t0=0, lambd=0)``, which uses the previous step's learning rate and
            leaves the first iterate out of the mean. The published numbers were made that way.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        nonmono: int,
        switch_epoch: int | None,
        asgd_compat: bool,
    ):
        if nonmono < 1:
            raise UserError(f"optimizer.nonmono={nonmono}: look back over at least 1 validation")
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.nonmono, self.switch_epoch, self.asgd_compat = nonmono, switch_epoch, asgd_compat
        for group in self.param_groups:
            group.update(history=[], num_validations=0, num_averaged=-1, previous_lr=None)
        if switch_epoch == 0:
            self.start_averaging()

    @property
    def averaging(self) -> bool:
        return self.param_groups[0]["num_averaged"] >= 0

    def start_averaging(self) -> None:
        for group in self.param_groups:
            group.update(num_averaged=0, previous_lr=None)  # torch's: the first step uses its own

    def observe(self, value: float) -> bool:
        """Tell the optimizer a validation result; true when it switches to averaging because of it."""
        group = self.param_groups[0]
        group["num_validations"] += 1
        if self.switch_epoch is not None:
            fires = group["num_validations"] >= self.switch_epoch
        else:
            fires = nonmonotone(group["history"], value, self.nonmono)
        group["history"].append(value)
        if fires and not self.averaging:
            self.start_averaging()
            return True
        return False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if not self.averaging:
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        wanted = [group["lr"] for group in self.param_groups]
        if self.asgd_compat:
            for group, lr in zip(self.param_groups, wanted, strict=True):
                group["lr"] = lr if group["previous_lr"] is None else group["previous_lr"]
                group["previous_lr"] = lr
        super().step()
        for group, lr in zip(self.param_groups, wanted, strict=True):
            group["lr"] = lr
            group["num_averaged"] += 1
            num = max(1, group["num_averaged"] - self.asgd_compat)
            for param in group["params"]:
                average = self.state[param].setdefault("average", torch.zeros_like(param))
                average.lerp_(param, 1.0 / num)
        return loss

    @torch.no_grad()
    def swap_average(self) -> None:
        """Exchange weights and averages; a second call brings the weights back. Nothing before averaging began."""
        for group in self.param_groups:
            for param in group["params"]:
                average = self.state[param].get("average")
                if average is not None:
                    kept = param.clone()
                    param.copy_(average)
                    average.copy_(kept)
