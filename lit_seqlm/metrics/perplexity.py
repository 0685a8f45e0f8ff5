"""Perplexity as the exponential of one mean, summed in float64."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_seqlm.errors import UserError, did_you_mean


class Perplexity(Metric):
    """Sum and count of negative log-likelihoods, with and without one unscored word (``<unk>``).

    Args:
        unknown_id: word left out of ``ppl_known``; null when the vocabulary has none.
    """

    full_state_update = False
    nll_sum: Tensor
    count: Tensor
    known_sum: Tensor
    known_count: Tensor

    def __init__(self, unknown_id: int | None = None):
        super().__init__()
        self.unknown_id = unknown_id
        for name in ("nll_sum", "count", "known_sum", "known_count"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, nll_N: Tensor, targets_N: Tensor) -> None:
        nll_N = nll_N.double()
        total, count = nll_N.sum(), nll_N.numel()
        # Not in place: a sum begun in inference mode could not be added to outside of it.
        self.nll_sum, self.count = self.nll_sum + total, self.count + count
        if self.unknown_id is not None:
            unknown_N = targets_N == self.unknown_id
            self.known_sum = self.known_sum + total - (nll_N * unknown_N).sum()
            self.known_count = self.known_count + count - unknown_N.sum()

    def compute(self) -> dict[str, float]:
        """nll in nats per token, ppl, tokens scored, and where there is an unknown word, the ppl without it."""
        if not self.count:
            return {}
        nll = float(self.nll_sum / self.count)
        values = {"nll": nll, "ppl": exp(nll), "tokens": float(self.count)}
        if self.known_count:
            values["ppl_known"] = exp(float(self.known_sum / self.known_count))
        return values


def known_metric(monitor: str) -> str:
    """The name itself, if it is one of a validation's numbers.

    Raises:
        UserError: with the nearest name.
    """
    names = [f"val/{name}" for name in ("nll", "ppl", "ppl_known")]
    if monitor not in names:
        raise UserError(
            f"monitor={monitor}: there is no such number. {did_you_mean(monitor, names)}"
        )
    return monitor


def exp(value: float) -> float:
    """math.exp that says inf instead of raising, for models that know nothing yet."""
    return math.exp(value) if value < 700 else math.inf
