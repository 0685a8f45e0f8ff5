"""The best of what was tried."""

import copy
import math

from torch import Tensor, nn

from lit_seqlm.errors import DivergedError


class Best:
    """The head with the smallest loss so far, and the setting that gave it."""

    def __init__(self) -> None:
        self.loss, self.setting = math.inf, 0.0
        self.kept: dict[str, Tensor] = {}

    def offer(self, loss: float, setting: float, head: nn.Module) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss on validation is {loss:.3g} at setting {setting:g} of the probe: try a smaller task.lr."
            )
        if loss < self.loss:
            self.loss, self.setting = loss, setting
            self.kept = copy.deepcopy(head.state_dict())
