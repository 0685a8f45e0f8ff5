"""Yes or no questions about whole sequences."""

# B = sequences, K = targets

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.head.prediction import Prediction
from lit_seqlm.objective.labels import checked_weights, filled, labels_loss
from lit_seqlm.objective.loss import Loss


class Classification:
    """Binary cross-entropy of the logits, in nats, of every label that is present.

    Args:
        task_weights: one factor for each target; null for equal ones.
    """

    def __init__(self, task_weights: Sequence[float] | None):
        self.task_weights = checked_weights(task_weights)

    def __call__(self, prediction: Prediction, wanted_BK: Tensor) -> Loss:
        """Loss against labels 0 and 1, NaN where missing; see `Regression` for what it returns."""
        label_BK, present_BK = filled(wanted_BK)
        logit_BK = prediction.mean_BK.double()
        loss_BK = F.binary_cross_entropy_with_logits(logit_BK, label_BK, reduction="none")
        return labels_loss(loss_BK, present_BK, self.task_weights)
