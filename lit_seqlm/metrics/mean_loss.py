"""The mean of a loss, summed in float64."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_seqlm.objective.loss import Loss


class MeanLoss(Metric):
    """Sum and count of an objective's losses: each label that is present counts once."""

    full_state_update = False
    monitored: tuple[str, ...] = ("loss",)  # what may pick the best weights: lower is better
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, loss: Loss) -> None:
        self.total = self.total + loss.clean_nll_N.double().sum()
        self.count = self.count + loss.clean_nll_N.numel()

    def mean_loss(self) -> float:
        return float(self.total / self.count.clamp(min=1))

    def compute(self) -> dict[str, float]:
        return {"loss": self.mean_loss()} if self.count else {}
