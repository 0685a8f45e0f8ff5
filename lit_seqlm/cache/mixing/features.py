"""What the gate may look at: columns on one scale, with gaps marked."""

# F = columns, N = scored tokens

import numpy as np

from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError, did_you_mean

DISTANCES = ("nearest", "farthest")  # last word of a feature that is a distance
SMALLEST_DISTANCE = 1e-6  # states seen twice have distance 0, which has no logarithm
FARTHEST = 5.0  # standard deviations; another domain must not drive a weight to 0 or 1


class Columns:
    """The features of a record, log of distances, and log(1 + position), standardised on validation.

    A value that is missing (NaN or infinite) becomes 0, the mean, and a column of its own says so
    wherever validation had gaps. Nothing here depends on the target.
    """

    def __init__(self) -> None:
        self.features: list[str] = []
        self.gaps: list[str] = []
        self.mean: dict[str, float] = {}
        self.scale: dict[str, float] = {}

    @property
    def names(self) -> list[str]:
        return [*self.mean, *(f"no {name}" for name in self.gaps)]

    def fit(self, valid: Record) -> np.ndarray:
        """Learn means and scales; (N, F) of the record itself."""
        self.features = sorted(valid.features)
        self.gaps, self.mean, self.scale = [], {}, {}
        for name, values_N in self._raw(valid).items():
            known_N = np.isfinite(values_N)
            self.mean[name] = float(values_N[known_N].mean()) if known_N.any() else 0.0
            deviation = float(values_N[known_N].std()) if known_N.any() else 0.0
            self.scale[name] = deviation if deviation > 1e-9 * abs(self.mean[name]) else 1.0
            if known_N.any() and not known_N.all():
                self.gaps.append(name)
        return self.standardised(valid)

    def standardised(self, record: Record) -> np.ndarray:
        """(N, F).

        Raises:
            UserError: if the record lacks a feature that validation had.
        """
        columns, missing = [], {}
        for name, values_N in self._raw(record).items():
            missing[name] = ~np.isfinite(values_N)
            values_N = (np.where(missing[name], 0, values_N) - self.mean[name]) / self.scale[name]
            columns.append(np.where(missing[name], 0, values_N.clip(-FARTHEST, FARTHEST)))
        return np.stack([*columns, *(missing[name].astype(float) for name in self.gaps)], axis=1)

    def _raw(self, record: Record) -> dict[str, np.ndarray]:
        raw = {}
        for name in self.features:
            if name not in record.features:
                raise UserError(
                    f"the gate looks at '{name}', which this record does not have. "
                    f"{did_you_mean(name, record.features)} Record both with the same memories."
                )
            raw[name] = record.features[name].astype(np.float64)
            if name.split("/")[-1] in DISTANCES:
                distances_N = np.log(np.maximum(raw[name], SMALLEST_DISTANCE))
                raw[name] = np.where(np.isfinite(raw[name]), distances_N, np.nan)
        raw["position"] = np.log1p(np.arange(len(record), dtype=np.float64))
        return raw
