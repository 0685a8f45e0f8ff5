"""No memory at evaluation: the static model alone."""

from torch import Tensor


class NoCache:
    """Adds nothing. Base of the memories that score first and then remember (`score`, then `update`)."""

    def log_prob(self, hidden_ND: Tensor, static_log_prob_N: Tensor, targets_N: Tensor) -> Tensor:
        """Log-probability of each target under the model and the memory of all earlier positions."""
        return static_log_prob_N

    def reset(self) -> None:
        """Forget everything; called before each split, so that validation is no memory of the test."""

    def update(self, hidden_ND: Tensor, targets_N: Tensor) -> None:
        """Remember positions that have been scored."""
