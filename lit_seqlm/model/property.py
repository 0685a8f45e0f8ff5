"""A trunk, a head, and the units of what it predicts: a property of a whole sequence."""

# B = sequences, T = tokens, D = hidden size, K = targets, C = covariates

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lit_seqlm.errors import UserError
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

    @classmethod
    def on(
        cls,
        encoder: Any,
        head: Callable[..., Any],
        kind: str,
        num_targets: int,
        num_covariates: int,
    ) -> "PropertyModel":
        """A new head and a scale to be fitted, on the trunk of an encoder.

        Args:
            head: called with `hidden_size` and `num_outputs`.
            kind: ``regression`` or ``classification``.

        Raises:
            UserError: if the model has no trunk, or the head is for parts of sequences.
        """
        trunk = trunk_of(encoder)
        made = head(hidden_size=trunk.hidden_size, num_outputs=num_targets)
        if not isinstance(made, Head):
            raise UserError(
                f"{type(made).__name__} predicts {made.site}s, and these targets are of whole sequences. Choose "
                "head=molformer or head=sequence_tape_torch."
            )
        scale = TargetScale if kind == "regression" else ProbabilityScale
        return cls(trunk, made, scale(num_targets, num_covariates))

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


def trunk_of(encoder: Any) -> Any:
    """The part of an encoder below its output embedding; UserError where there is none."""
    trunk = getattr(encoder, "trunk", None)
    if trunk is None:
        raise UserError(
            f"{type(encoder).__name__} has no trunk to put a head on. Choose an encoder, such as "
            "model=linear_encoder_cpu."
        )
    return trunk
