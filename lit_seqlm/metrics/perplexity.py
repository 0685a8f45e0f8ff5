"""Perplexity as the exponential of one mean, summed in float64."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class Perplexity(Metric):
    """Sum and count of negative log-likelihoods, with and without one unscored word (``<unk>``).

    Args:
        unknown_id: word left out of ``ppl_known``; null when the vocabulary has none.
    """

    full_state_update = False
    monitored = ("nll", "ppl", "ppl_known")  # what may pick the best weights: lower is better
    nll_sum: Tensor
    count: Tensor
    known_sum: Tensor
    known_count: Tensor
    hits: Tensor
    asked: Tensor

    def __init__(self, unknown_id: int | None = None):
        super().__init__()
        self.unknown_id = unknown_id
        for name in ("nll_sum", "count", "known_sum", "known_count", "hits", "asked"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, nll_N: Tensor, targets_N: Tensor, hits_N: Tensor | None = None) -> None:
        nll_N = nll_N.double()
        if hits_N is not None:
            self.hits, self.asked = self.hits + hits_N.sum(), self.asked + hits_N.numel()
        total, count = nll_N.sum(), nll_N.numel()
        # Not in place: a sum begun in inference mode could not be added to outside of it.
        self.nll_sum, self.count = self.nll_sum + total, self.count + count
        if self.unknown_id is not None:
            unknown_N = targets_N == self.unknown_id
            self.known_sum = self.known_sum + total - (nll_N * unknown_N).sum()
            self.known_count = self.known_count + count - unknown_N.sum()

    def mean_loss(self) -> float:
        """In nats per prediction, of what was seen so far."""
        return float(self.nll_sum / self.count.clamp(min=1))

    def compute(self) -> dict[str, float]:
        """nll in nats per token, ppl, tokens scored; ppl without an unknown word, accuracy, where there are such."""
        if not self.count:
            return {}
        nll = float(self.nll_sum / self.count)
        values = {"nll": nll, "ppl": exp(nll), "tokens": float(self.count)}
        if self.known_count:
            values["ppl_known"] = exp(float(self.known_sum / self.known_count))
        if self.asked:
            values["accuracy"] = float(self.hits / self.asked)
        return values


def exp(value: float) -> float:
    """math.exp that says inf instead of raising, for models that know nothing yet."""
    return math.exp(value) if value < 700 else math.inf
