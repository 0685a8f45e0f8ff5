"""Intervals that hold the label as often as they say, whatever the model (Vovk et al. 2005).

Split-conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018): the errors on n rows that no
weight has seen tell how wide an interval must be. If those rows and the new one could have come in
any order (are exchangeable), the label lies within with probability at least 1 - miscoverage. That
holds over all rows, not for each kind of row, and not after a shift such as new scaffolds.
"""

# N = rows, K = targets

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_seqlm.errors import UserError


@dataclass(frozen=True)
class Band:
    """Where a model expects the label, before calibration, and what it counts distances beyond in.

    Attributes:
        low_NK: lower end.
        high_NK: upper end.
        spread_NK: a row's unit of doubt; above 0.
    """

    low_NK: np.ndarray
    high_NK: np.ndarray
    spread_NK: np.ndarray

    @classmethod
    def around(cls, prediction_NK: np.ndarray) -> "Band":
        """A single value: intervals of one width for all rows."""
        return cls(prediction_NK, prediction_NK, np.ones_like(prediction_NK))

    @classmethod
    def scaled(cls, prediction_NK: np.ndarray, sigma_NK: np.ndarray) -> "Band":
        """A single value with its uncertainty: widths follow sigma (Lei et al. 2018, section 5.2)."""
        if not (sigma_NK > 0).all():
            raise UserError("a conformal interval in units of sigma needs every sigma above 0")
        return cls(prediction_NK, prediction_NK, sigma_NK)

    @classmethod
    def between(cls, low_NK: np.ndarray, high_NK: np.ndarray) -> "Band":
        """Two quantiles, widened or narrowed by one amount (Romano et al. 2019)."""
        return cls(low_NK, high_NK, np.ones_like(low_NK))


@dataclass(frozen=True)
class SplitConformal:
    """How far beyond its band each target's interval reaches, in units of the band's spread.

    Attributes:
        radius_K: infinite where there are too few calibration labels to promise anything.
        num_labels_K: calibration labels behind each radius.
        miscoverage: share of labels that may lie outside, alpha.
    """

    radius_K: np.ndarray
    num_labels_K: np.ndarray
    miscoverage: float

    @classmethod
    def fit(cls, band: Band, label_NK: np.ndarray, miscoverage: float) -> "SplitConformal":
        """From rows that neither trained nor chose the model; a missing label (NaN) counts nowhere."""
        if not 0 < miscoverage < 1:
            raise UserError(f"miscoverage={miscoverage}: must lie between 0 and 1, such as 0.1")
        beyond_NK = np.maximum(band.low_NK - label_NK, label_NK - band.high_NK) / band.spread_NK
        columns = [column[~np.isnan(column)] for column in beyond_NK.T]
        radius_K = np.array([conformal_quantile(column, miscoverage) for column in columns])
        return cls(radius_K, np.array([len(column) for column in columns]), miscoverage)

    def interval(self, band: Band) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (N, K); between two quantiles they may meet in the middle, never cross."""
        reach_NK = self.radius_K * band.spread_NK
        low_NK, high_NK = band.low_NK - reach_NK, band.high_NK + reach_NK
        middle_NK = (band.low_NK + band.high_NK) / 2
        return np.minimum(low_NK, middle_NK), np.maximum(high_NK, middle_NK)

    def state_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a JSON file; an infinite radius is null."""
        return {
            "radius": [value if math.isfinite(value) else None for value in self.radius_K.tolist()],
            "num_labels": self.num_labels_K.tolist(),
            "miscoverage": self.miscoverage,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "SplitConformal":
        radius = [math.inf if value is None else value for value in state["radius"]]
        return cls(np.array(radius), np.array(state["num_labels"]), state["miscoverage"])


def conformal_quantile(score_N: np.ndarray, miscoverage: float) -> float:
    """The ceil((n + 1) (1 - miscoverage))-th smallest score; infinite where that is more than n."""
    # What float64 makes of 1 - 0.9 must not turn a whole number into the next one.
    rank = max(1, math.ceil(round((len(score_N) + 1) * (1 - miscoverage), 9)))
    if rank > len(score_N):
        return math.inf
    return float(np.partition(score_N, rank - 1)[rank - 1])


def coverage(low_NK: np.ndarray, high_NK: np.ndarray, label_NK: np.ndarray) -> np.ndarray:
    """Share (K,) of the labels that are present and lie within; NaN for a target without labels."""
    present_NK = ~np.isnan(label_NK)
    within_NK = present_NK & (low_NK <= label_NK) & (label_NK <= high_NK)
    with np.errstate(invalid="ignore"):
        return within_NK.sum(0) / present_NK.sum(0)
