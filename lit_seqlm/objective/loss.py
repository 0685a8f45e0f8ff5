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
        targets_N: what was to be predicted.
        hits_N: whether the likeliest prediction is right; null where the objective does not ask.
    """

    sum: Tensor
    count: int
    clean_nll_N: Tensor
    targets_N: Tensor
    hits_N: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        return self.sum / max(
            self.count, 1
        )  # short sequences may leave a batch with nothing masked
