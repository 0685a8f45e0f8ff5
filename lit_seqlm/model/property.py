"""A trunk, a head, and the units of what it predicts: a property of a whole sequence."""

# B = sequences, T = tokens, D = hidden size, K = targets, C = covariates

from torch import Tensor, nn

from lit_seqlm.head.base import Head
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.model.layers.target_scale import ProbabilityScale, TargetScale


class PropertyModel(nn.Module):
    """Trained on `forward`, used through `predict` and `embed`.

    Args:
        trunk: called with tokens and which of them are no padding, gives hidden states (B, T, D).
        head: pools them and predicts on the scaled targets.
        scale: fitted on the training labels, or loaded with the weights.
    """

    def __init__(self, trunk: nn.Module, head: Head, scale: TargetScale | ProbabilityScale):
        super().__init__()
        self.trunk, self.head, self.scale = trunk, head, scale

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Prediction:
        """The prediction on the scaled targets, which the objective compares with `scale.to_scaled`."""
        return self.head(self.trunk(tokens_BT, valid_BT), valid_BT)

    def predict(
        self,
        tokens_BT: Tensor,
        valid_BT: Tensor | None = None,
        covariates_BC: Tensor | None = None,
    ) -> Tensor:
        """Values (B, K) in the data's own units, or probabilities of class 1; float64."""
        return self.scale.to_raw(self(tokens_BT, valid_BT).mean_BK, covariates_BC)

    def embed(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Pooled states (B, D), before any layer of the head; at least float32."""
        return self.head.pooling(self.trunk(tokens_BT, valid_BT), valid_BT)
