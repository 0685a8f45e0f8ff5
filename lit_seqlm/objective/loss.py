"""A loss as (sum, count): exact however a batch is cut into micro-batches."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Loss:
    """What an objective returns.

    Attributes:
        sum: of the training loss over the predictions, a float64 scalar with gradients.
        count: number of predictions.
        clean_nll_N: each prediction's negative log-likelihood without margin or smoothing, detached, in nats.
        targets_N: what was predicted.
    """

    sum: Tensor
    count: int
    clean_nll_N: Tensor
    targets_N: Tensor

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count
