"""Mean and variance (Nix and Weigend, 1994)."""

# B = sequences, K = targets, P = numbers for each target

import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.head.molformer import MolformerHead
from lit_seqlm.head.prediction import GaussianPrediction

SMALLEST_VARIANCE = (
    1e-6  # on the scaled targets: keeps a label met exactly from an infinite density
)


class GaussianHead(MolformerHead):
    """MoLFormer's head, its last layer giving a mean m and s, whose softplus is the variance.

    Trained with ``objective.loss=gaussian``.
    """

    has_sigma = True
    numbers_per_output = 2

    def prediction(self, numbers_BKP: Tensor) -> GaussianPrediction:
        mean_BK, raw_BK = numbers_BKP.unbind(-1)
        return GaussianPrediction(mean_BK, F.softplus(raw_BK) + SMALLEST_VARIANCE)
