"""A stack of one-layer LSTMs on torch's own kernels, with dropout between layers and on recurrent weights."""

# B = sequences, T = tokens, D = hidden size

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call

from lit_seqlm.model.layers.dropout import drop_weight

LSTMState = list[tuple[Tensor, Tensor]]  # per layer: h and c, each (1, B, D)


class LSTMStack(nn.Module):
    """LSTM layers of the given sizes; `between` is applied to the output of every layer but the last.

    Args:
        sizes: input size, then each layer's hidden size.
        between: dropout between layers (plain or locked).
        weight_dropout: rate on the hidden-to-hidden matrices, drawn once a segment. The masked matrix is used
            through `torch.func.functional_call`, so parameters keep their names and gradients reach them.
    """

    def __init__(self, sizes: Sequence[int], between: nn.Module, weight_dropout: float = 0.0):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.LSTM(size_in, size_out, batch_first=True)
            for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.between = between
        self.weight_dropout = weight_dropout

    def forward(self, input_BTD: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        """Returns the last layer's output before any dropout, and the state after the last token."""
        new_state: LSTMState = []
        hidden_BTD = input_BTD
        for index, layer in enumerate(self.layers):
            if index:
                hidden_BTD = self.between(hidden_BTD)
            hidden_BTD, layer_state = self._run(layer, hidden_BTD, state[index] if state else None)
            new_state.append(layer_state)
        return hidden_BTD, new_state

    def _run(
        self, layer: nn.Module, input_BTD: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not (self.training and self.weight_dropout):
            return layer(input_BTD, state)
        weights = dict(layer.named_parameters())
        weights["weight_hh_l0"] = drop_weight(weights["weight_hh_l0"], self.weight_dropout, training=True)
        return functional_call(layer, weights, (input_BTD, state))


def detach_state(state: LSTMState) -> LSTMState:
    return [(h.detach(), c.detach()) for h, c in state]
