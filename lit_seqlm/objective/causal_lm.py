"""Next-token prediction."""

from torch import nn

from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.margin import LOSS_PATHS, Margin, select
from lit_seqlm.model.output import Output
from lit_seqlm.objective.loss import Loss


class CausalLM:
    """Cross-entropy of the next token, with the regularizer's margin on the target's logit.

    Args:
        label_smoothing: uniform mass taken from the target (Szegedy et al. 2016).
        path: ``fused`` never holds all N x V logits; ``plain`` does, and serves as its oracle.
    """

    def __init__(self, label_smoothing: float, path: str):
        if path not in LOSS_PATHS:
            raise UserError(f"objective.path={path}: choose one of {', '.join(LOSS_PATHS)}")
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"objective.label_smoothing={label_smoothing}: must be at least 0 and below 1"
            )
        self.label_smoothing, self.path = label_smoothing, path

    def __call__(
        self, output: Output, output_embedding: nn.Module, batch: Batch, regularizer: Margin
    ) -> Loss:
        total, clean_nll_N = output_embedding.nll(  # type: ignore[operator]
            output.hidden_BTD,
            batch.targets_BT,
            batch.mask_BT,
            regularizer,
            self.label_smoothing,
            self.path,
        )
        return Loss(
            total, clean_nll_N.numel(), clean_nll_N, select(batch.targets_BT, batch.mask_BT)
        )
