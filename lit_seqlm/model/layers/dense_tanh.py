"""Megatron's classifier: dense, tanh, dropout, dense."""

from torch import Tensor, nn


class DenseTanh(nn.Module):
    """V drop(tanh(W x + b)) + c.

    Args:
        input_size, hidden_size, num_outputs: of x, of what tanh gives, of the result.
        dropout: after the tanh.
        init_std: of W and V; b and c begin at zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_outputs: int,
        dropout: float,
        init_std: float,
    ):
        super().__init__()
        self.dense = nn.Linear(input_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_outputs)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.dense, self.out):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.dropout(self.dense(features).tanh()))
