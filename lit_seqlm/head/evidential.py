"""A distribution over mean and variance in one pass (Amini et al., NeurIPS 2020)."""

# B = sequences, K = targets, P = numbers for each target

import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.head.molformer import MolformerHead
from lit_seqlm.head.prediction import EvidentialPrediction

SMALLEST = 1e-6  # of evidence, shape - 1 and rate: keeps every variance finite


class EvidentialHead(MolformerHead):
    """MoLFormer's head, its last layer giving m, nu, alpha and beta through softplus, alpha above 1.

    Trained with ``objective.loss=evidential``.
    """

    has_sigma = True
    numbers_per_output = 4

    def prediction(self, numbers_BKP: Tensor) -> EvidentialPrediction:
        mean_BK = numbers_BKP[..., 0]
        evidence_BK, excess_BK, rate_BK = (
            F.softplus(numbers_BKP[..., 1:].double()) + SMALLEST
        ).unbind(-1)
        return EvidentialPrediction(mean_BK, evidence_BK, 1 + excess_BK, rate_BK)
