"""Yes or no questions about whole sequences."""

# B = sequences, K = targets

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError
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
        """Loss against labels 0 and 1, NaN where missing; see `Regression` for what it returns.

        Raises:
            UserError: the prediction tells its uncertainty, as of numbers.
        """
        if type(prediction) is not Prediction:
            name = type(prediction).__name__.removesuffix("Prediction").lower()
            raise UserError(
                f"head={name} predicts numbers and their uncertainty, and these labels are classes. Say head=molformer."
            )
        label_BK, present_BK = filled(wanted_BK)
        logit_BK = prediction.mean_BK.double()
        loss_BK = F.binary_cross_entropy_with_logits(logit_BK, label_BK, reduction="none")
        return labels_loss(loss_BK, present_BK, self.task_weights)
