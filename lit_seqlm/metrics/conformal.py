"""Intervals that hold the label as often as they say, whatever the model (Vovk et al. 2005).

Split-conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018): the errors on n rows that no
weight has seen tell how wide an interval must be. If those rows and the new one could have come in
any order (are exchangeable), the label lies within with probability at least 1 - miscoverage. That
holds over all rows, not for each kind of row, and not after a shift such as new scaffolds.
"""

# N = rows, K = targets

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_seqlm.errors import UserError


@dataclass(frozen=True)
class Band:
    """Where a model expects the label, and what it counts distances from there in.

    Attributes:
        prediction_NK: its best guess.
        spread_NK: a row's unit of doubt; above 0.
    """

    prediction_NK: np.ndarray
    spread_NK: np.ndarray

    @classmethod
    def around(cls, prediction_NK: np.ndarray) -> "Band":
        """Intervals of one width for all rows."""
        return cls(prediction_NK, np.ones_like(prediction_NK))

    @classmethod
    def scaled(cls, prediction_NK: np.ndarray, sigma_NK: np.ndarray) -> "Band":
        """Widths follow sigma (Lei et al. 2018, section 5.2)."""
        if not (sigma_NK > 0).all():
            raise UserError("a conformal interval in units of sigma needs every sigma above 0")
        return cls(prediction_NK, sigma_NK)


@dataclass(frozen=True)
class SplitConformal:
    """How far each target's interval reaches, in units of the band's spread.

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
        score_NK = np.abs(label_NK - band.prediction_NK) / band.spread_NK
        columns = [column[~np.isnan(column)] for column in score_NK.T]
        radius_K = np.array([conformal_quantile(column, miscoverage) for column in columns])
        return cls(radius_K, np.array([len(column) for column in columns]), miscoverage)

    def interval(self, band: Band) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (N, K)."""
        reach_NK = self.radius_K * band.spread_NK
        return band.prediction_NK - reach_NK, band.prediction_NK + reach_NK

    def state_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a JSON file; an infinite radius is null."""
        return {
            "radius": [value if math.isfinite(value) else None for value in self.radius_K.tolist()],
            "num_labels": self.num_labels_K.tolist(),
            "miscoverage": self.miscoverage,
        }


def conformal_quantile(score_N: np.ndarray, miscoverage: float) -> float:
    """The ceil((n + 1) (1 - miscoverage))-th smallest score; infinite where that is more than n."""
    # What float64 makes of 1 - 0.9 must not turn a whole number into the next one.
    rank = max(1, math.ceil(round((len(score_N) + 1) * (1 - miscoverage), 9)))
    if rank > len(score_N):
        return math.inf
    return float(np.partition(score_N, rank - 1)[rank - 1])
