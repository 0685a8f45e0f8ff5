"""The position-wise half of a transformer block."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from lit_seqlm.errors import UserError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(
        nn.GELU, approximate="tanh"
    ),  # what Megatron computes together with the bias
}


class FeedForward(nn.Module):
    """Linear, activation, dropout, linear, at every position (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, hidden_size: int, inner_size: int, activation: str, dropout: float):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(
                f"model.activation={activation}: choose one of {', '.join(ACTIVATIONS)}"
            )
        self.widen = nn.Linear(hidden_size, inner_size)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(inner_size, hidden_size)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return self.out(self.dropout(self.activation(self.widen(hidden_BTD))))
