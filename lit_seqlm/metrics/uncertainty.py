"""Whether a predicted standard deviation says how wrong the prediction is."""

# M = members of an ensemble, N = labels, K = targets, G = groups of rows

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.metrics.collect import LabelMetric, Named, mean_of
from lit_seqlm.metrics.ranks import spearman

NUM_GROUPS = 10  # of the calibration error
SMALLEST_GROUP = 2  # rows: a root mean square of one is its only error


@dataclass(frozen=True)
class Ensemble:
    """What several models say together.

    Attributes:
        mean_NK: mean of their predictions.
        doubt_NK: variance of their predictions about it: what more data or models would change.
        noise_NK: mean of the variances they predict, zero where they predict none.
    """

    mean_NK: np.ndarray
    doubt_NK: np.ndarray
    noise_NK: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        """Standard deviation (N, K) of the mixture: sqrt(doubt + noise)."""
        return np.sqrt(self.doubt_NK + self.noise_NK)


def ensemble(mean_MNK: np.ndarray, variance_MNK: np.ndarray | None = None) -> Ensemble:
    """Equal mixture of the members (Lakshminarayanan et al. 2017, section 2.4).

    Its variance is mean(variance + mean^2) - mean(mean)^2. The members' variance is taken as it is,
    divided by M: two seeds give a poor estimate of it.
    """
    mean_NK = mean_MNK.mean(0)
    noise_NK = np.zeros_like(mean_NK) if variance_MNK is None else variance_MNK.mean(0)
    return Ensemble(mean_NK, mean_MNK.var(0), noise_NK)


class UncertaintyMetrics(LabelMetric):
    """Of heads that predict a standard deviation.

    For each target what `uncertainty_errors` tells, such as ``ence/NAME``; ``ence``, ``miscalibration_area``
    and ``error_spearman`` are means over targets too.

    Args:
        targets: in the order of the columns.
    """

    sigmas: list[Tensor]

    def __init__(self, targets: Sequence[Named]):
        super().__init__(targets)
        self.add_state("sigmas", [], dist_reduce_fx="cat")

    def update(  # type: ignore[override]
        self, prediction_BK: Tensor, labels_BK: Tensor, rows_B: Tensor, sigma_BK: Tensor
    ) -> None:
        """Add a batch, all in the data's own units."""
        super().update(prediction_BK, labels_BK, rows_B)
        self.sigmas.append(sigma_BK.detach().double())

    def numbers(self, prediction_NK: np.ndarray, label_NK: np.ndarray) -> dict[str, float]:
        (sigma_NK,) = self.by_row(self.sigmas)
        if not np.isfinite(sigma_NK).all():
            raise DivergedError(
                "a predicted standard deviation is not finite. Try a smaller optimizer.lr."
            )
        values: dict[str, float] = {}
        for column, name in enumerate(self.names):
            errors = uncertainty_errors(
                prediction_NK[:, column], sigma_NK[:, column], label_NK[:, column]
            )
            values |= {f"{measure}/{name}": value for measure, value in errors.items()}
        for measure in ("ence", "miscalibration_area", "error_spearman"):
            values |= mean_of(values, measure, self.names)
        return values


def uncertainty_errors(
    prediction_N: np.ndarray, sigma_N: np.ndarray, label_N: np.ndarray
) -> dict[str, float]:
    """How far to believe a target's standard deviations; empty without labels.

    ``sigma_nll``, the Gaussian likelihood in the data's unit; ``ence``; ``miscalibration_area``;
    ``error_spearman``, of errors with sigmas; ``sigma``, the mean; ``sigma_factor``, by which all had better be
    multiplied.

    A missing label (NaN) counts nowhere. `ence` and `error_spearman` are absent where undefined.

    Raises:
        UserError: a sigma is not above 0.
    """
    present_N = ~np.isnan(label_N)
    if not present_N.any():
        return {}
    sigma_N, error_N = sigma_N[present_N], (prediction_N - label_N)[present_N]
    if not (sigma_N > 0).all():
        raise UserError("an uncertainty must be above 0 in every row")
    values = {
        "sigma_nll": gaussian_nll(error_N, sigma_N),
        "ence": calibration_error(error_N, sigma_N, NUM_GROUPS),
        "miscalibration_area": miscalibration_area(error_N, sigma_N),
        "error_spearman": spearman(np.abs(error_N), sigma_N),
        "sigma": float(sigma_N.mean()),
        "sigma_factor": sigma_factor(error_N, sigma_N),
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def gaussian_nll(error_N: np.ndarray, sigma_N: np.ndarray) -> float:
    """Mean negative log-density of the labels under normal distributions, in nats of the data's unit."""
    return float((0.5 * np.log(2 * math.pi * sigma_N**2) + 0.5 * (error_N / sigma_N) ** 2).mean())


def calibration_error(error_N: np.ndarray, sigma_N: np.ndarray, num_groups: int) -> float:
    """ENCE: mean over groups of |root mean variance - root mean square error| / root mean variance.

    Levi et al. 2022, section 3.2. Groups are of equal size, by rising sigma. NaN where they would
    have fewer than two rows.
    """
    if len(error_N) < SMALLEST_GROUP * num_groups:
        return math.nan
    groups = np.array_split(np.argsort(sigma_N, kind="stable"), num_groups)
    expected_G = np.array([math.sqrt(np.square(sigma_N[group]).mean()) for group in groups])
    found_G = np.array([math.sqrt(np.square(error_N[group]).mean()) for group in groups])
    return float((np.abs(expected_G - found_G) / expected_G).mean())


def miscalibration_area(error_N: np.ndarray, sigma_N: np.ndarray) -> float:
    """Integral over p of |share of labels within the central interval of probability p, less p|.

    Kuleshov et al. 2018, Tran et al. 2020, figure 2. A label is within from p = erf(|z| / sqrt(2)) on, so
    the share is a staircase and the integral is taken exactly. 0 is best; 1 / 2 is reached where
    sigma is far too small or far too large.
    """
    z_N = np.abs(error_N) / (sigma_N * math.sqrt(2))
    reached_N = np.sort(torch.erf(torch.from_numpy(np.asarray(z_N, np.float64))).numpy())
    share_S = np.arange(len(reached_N) + 1) / len(reached_N)  # on the stair's steps
    from_S, to_S = np.append(0.0, reached_N), np.append(reached_N, 1.0)

    def signed_square(p_S: np.ndarray) -> np.ndarray:
        return (p_S - share_S) * np.abs(p_S - share_S) / 2

    return float((signed_square(to_S) - signed_square(from_S)).sum())


def sigma_factor(error_N: np.ndarray, sigma_N: np.ndarray) -> float:
    """Root mean square of error / sigma: by this times sigma the likelihood is highest.

    That of validation rows recalibrates with one number (Levi et al. 2022); that of the rows themselves says how
    far off they were.
    """
    return float(np.sqrt(np.square(error_N / sigma_N).mean()))
