"""What a head returns, so that objectives and tasks need not know which one it is.

All numbers are on the scale that the network is trained on: `TargetScale` gives them their units.
"""

# B = sequences, K = targets, Q = quantile levels

from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor


@dataclass
class Prediction:
    """One number for each target.

    Attributes:
        mean_BK: the prediction; the logit of class 1 where targets are classes.
    """

    mean_BK: Tensor

    @property
    def sigma(self) -> Tensor | None:
        """Standard deviation (B, K) of the label about the prediction; null where the head gives none."""
        return None


@dataclass
class GaussianPrediction(Prediction):
    """A normal distribution.

    Attributes:
        variance_BK: of the label about its mean.
    """

    variance_BK: Tensor

    @property
    def sigma(self) -> Tensor:
        return self.variance_BK.sqrt()


@dataclass
class QuantilePrediction(Prediction):
    """Quantiles that never cross; the median is the prediction.

    Attributes:
        quantiles_BKQ: rising along the last axis.
        levels: what share of the labels lies below each.
    """

    quantiles_BKQ: Tensor
    levels: list[float]

    @property
    def sigma(self) -> Tensor:
        """That of the normal distribution with the same outermost quantiles."""
        normal = NormalDist()
        width = normal.inv_cdf(self.levels[-1]) - normal.inv_cdf(self.levels[0])
        return (self.quantiles_BKQ[..., -1] - self.quantiles_BKQ[..., 0]) / width


@dataclass
class EvidentialPrediction(Prediction):
    """A normal-inverse-gamma distribution over mean and variance (Amini et al. 2020, section 3.1).

    Attributes:
        evidence_BK: nu > 0, observations that the mean rests on.
        shape_BK: alpha > 1.
        rate_BK: beta > 0.
    """

    evidence_BK: Tensor
    shape_BK: Tensor
    rate_BK: Tensor

    @property
    def sigma(self) -> Tensor:
        """sqrt(beta / (alpha - 1) * (1 + 1 / nu)): noise of the data and doubt about the mean."""
        noise_BK = self.rate_BK / (self.shape_BK - 1)
        return (noise_BK * (1 + 1 / self.evidence_BK)).sqrt()
