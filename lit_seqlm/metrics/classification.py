"""How well classes are told apart, and whether their probabilities can be believed."""

# N = sequences with a label, K = targets, M = bins

from collections.abc import Sequence

import numpy as np

from lit_seqlm.errors import UserError
from lit_seqlm.metrics.collect import LabelMetric, Named, mean_of
from lit_seqlm.metrics.ranks import area_under_roc

NUM_BINS = 15  # of the calibration error: Guo et al. 2017


class ClassificationMetrics(LabelMetric):
    """Of probabilities of class 1, for each target and their means over targets.

    ``auroc/NAME`` and ``average_precision/NAME`` where both classes are there; ``brier/NAME``, the mean
    squared error of the probability, and ``ece/NAME`` where there is any label. ``auroc``,
    ``average_precision``, ``brier`` and ``ece`` are means over the targets that have them.

    Args:
        targets: in the order of the columns.

    Attributes:
        one_class: names of the targets of the last `compute` that have no AUROC.
    """

    def __init__(self, targets: Sequence[Named]):
        super().__init__(targets)
        self.one_class: list[str] = []

    def numbers(self, prediction_NK: np.ndarray, label_NK: np.ndarray) -> dict[str, float]:
        values: dict[str, float] = {}
        for column, name in enumerate(self.names):
            present_N = ~np.isnan(label_NK[:, column])
            label_N, probability_N = label_NK[present_N, column], prediction_NK[present_N, column]
            _check(label_N, probability_N, name)
            errors = classification_errors(probability_N, label_N == 1)
            values |= {f"{measure}/{name}": value for measure, value in errors.items()}
        self.one_class = [name for name in self.names if f"auroc/{name}" not in values]
        for measure in ("auroc", "average_precision", "brier", "ece"):
            values |= mean_of(values, measure, self.names)
        return values | {"labels": float((~np.isnan(label_NK)).sum())}


def classification_errors(probability_N: np.ndarray, positive_N: np.ndarray) -> dict[str, float]:
    """brier, ece and, with both classes, auroc and average_precision; empty without labels."""
    if not len(positive_N):
        return {}
    values = {
        "brier": float(np.square(probability_N - positive_N).mean()),
        "ece": expected_calibration_error(probability_N, positive_N, NUM_BINS),
    }
    if 0 < positive_N.sum() < len(positive_N):
        values["auroc"] = area_under_roc(probability_N, positive_N)
        values["average_precision"] = average_precision(probability_N, positive_N)
    return values


def average_precision(score_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Sum over the distinct scores, highest first, of precision there times the rise of recall."""
    distinct_G, group_N = np.unique(-score_N, return_inverse=True)
    found_G = np.cumsum(np.bincount(group_N, weights=positive_N, minlength=len(distinct_G)))
    taken_G = np.cumsum(np.bincount(group_N, minlength=len(distinct_G)))
    rise_G = np.diff(found_G, prepend=0.0) / found_G[-1]
    return float((found_G / taken_G * rise_G).sum())


def expected_calibration_error(
    probability_N: np.ndarray, positive_N: np.ndarray, num_bins: int
) -> float:
    """sum over equal bins of the share of rows there, times |mean probability - share of class 1|.

    Naeini et al. 2015, Guo et al. 2017, of the probability of class 1.
    """
    bin_N = np.minimum((probability_N * num_bins).astype(np.int64), num_bins - 1)
    gap_M = np.bincount(bin_N, weights=probability_N - positive_N, minlength=num_bins)
    return float(np.abs(gap_M).sum() / len(bin_N))


def _check(label_N: np.ndarray, probability_N: np.ndarray, name: str) -> None:
    odd = label_N[(label_N != 0) & (label_N != 1)]
    if len(odd):
        raise UserError(
            f"{name} has the label {odd[0]:g}: classes are 0 and 1, and an empty cell where unknown"
        )
    assert ((probability_N >= 0) & (probability_N <= 1)).all(), f"{name}: no probabilities"
