"""Activation regularization: small activations (AR) that change slowly (TAR). Merity et al. 2017."""

# B = sequences, T = tokens, D = hidden size

from torch import Tensor, nn

from lit_seqlm.model.output import Output


class ActivationPenalty(nn.Module):
    """alpha mean(h_dropped^2) + beta mean((h_{t+1} - h_t)^2), on the last layer only.

    AR reads the output after dropout, TAR the output before it.
    """

    def __init__(self, alpha: float, beta: float):
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, output: Output) -> Tensor:
        penalty = self.alpha * output.hidden_BTD.square().mean()
        if output.raw_BTD.size(1) > 1:
            penalty = penalty + self.beta * output.raw_BTD.diff(dim=1).square().mean()
        return penalty
