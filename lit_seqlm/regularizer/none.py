"""No regularizer: the plain cross-entropy."""

from torch import Tensor, nn


class NoRegularizer(nn.Module):
    """Margin zero for every target. Base of the others: what they do not change stays as it is here."""

    adaptive_scope = "tail"

    def set_step(self, step: int) -> None:
        """Told the number of optimizer steps taken before each training step; for schedules."""

    def target_margin(self, hidden_ND: Tensor, target_rows_ND: Tensor, targets_N: Tensor) -> Tensor:
        """How much to subtract from each target's logit (N); zero outside of training."""
        return hidden_ND.new_zeros(hidden_ND.size(0))

    def target_rise(self, hidden_ND: Tensor, target_rows_ND: Tensor) -> Tensor:
        """How much `augment` raises each target's own logit (N), to be taken back."""
        return hidden_ND.new_zeros(hidden_ND.size(0))

    def augment(self, hidden_ND: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden vectors and output embedding with extra dimensions, for noise on words other than the target."""
        return hidden_ND, weight_VD
