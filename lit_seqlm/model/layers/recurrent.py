"""Recurrent language models: the frame of AWD-LSTM, and LSTM layers on torch's own kernels."""

# B = sequences, T = tokens, D = hidden size

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.func import functional_call

from lit_seqlm.model.layers.dropout import DroppedEmbedding, drop_weight
from lit_seqlm.model.output import Output

# What each layer carries to the next segment: h and c (1, B, D) of an LSTM.
RecurrentState = list[tuple[Tensor, ...]]


class RecurrentLanguageModel(nn.Module):
    """Embedding, recurrent layers, output embedding, with dropout before and after the layers.

    The models of this frame (LSTM, AWD-LSTM, its mixture of softmaxes, QRNN) differ in their parts only.

    Args:
        stack: ``stack(input_BTD, state) -> (last layer's output before dropout, state)``.
        input_dropout, output_dropout: on embeddings and after the last layer.
    """

    def __init__(
        self,
        embedding: DroppedEmbedding,
        stack: nn.Module,
        output_embedding: nn.Module,
        input_dropout: nn.Module,
        output_dropout: nn.Module,
    ):
        super().__init__()
        self.embedding, self.stack, self.output_embedding = embedding, stack, output_embedding
        self.input_dropout, self.output_dropout = input_dropout, output_dropout

    def forward(self, tokens_BT: Tensor, state: RecurrentState | None = None) -> Output:
        embedded_BTD = self.input_dropout(self.embedding(tokens_BT))
        raw_BTD, state = self.stack(embedded_BTD, state)
        return Output(self.output_dropout(raw_BTD), state, raw_BTD)

    def key_modules(self) -> dict[str, nn.Module]:
        """States that memories may compare, beside the output (see `lit_seqlm.task.keys`)."""
        return {"embedding": self.embedding}

    @staticmethod
    def detach(state: RecurrentState) -> RecurrentState:
        return detach_state(state)


class LSTMStack(nn.Module):
    """LSTM layers of the given sizes; `between` is applied to every layer's output but the last's.

    Args:
        sizes: input size, then each layer's hidden size.
        between: dropout between layers (plain or locked).
        weight_dropout: rate on the hidden-to-hidden matrices, drawn once a segment. The masked
            matrix is used through `torch.func.functional_call`: parameters keep their names,
            gradients reach them.
    """

    def __init__(self, sizes: Sequence[int], between: nn.Module, weight_dropout: float = 0.0):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.LSTM(size_in, size_out, batch_first=True) for size_in, size_out in pairwise(sizes)
        )
        self.between = between
        self.weight_dropout = weight_dropout

    def forward(
        self, input_BTD: Tensor, state: RecurrentState | None
    ) -> tuple[Tensor, RecurrentState]:
        """Returns the last layer's output before dropout, and the state after the last token."""
        new_state: RecurrentState = []
        hidden_BTD = input_BTD
        for index, layer in enumerate(self.layers):
            if index:
                hidden_BTD = self.between(hidden_BTD)
            hidden_BTD, layer_state = self._run(layer, hidden_BTD, state[index] if state else None)
            new_state.append(layer_state)
        return hidden_BTD, new_state

    def _run(
        self, layer: nn.Module, input_BTD: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not (self.training and self.weight_dropout):
            return layer(input_BTD, state)
        weights: dict[str, Tensor] = dict(layer.named_parameters())
        weights["weight_hh_l0"] = drop_weight(
            weights["weight_hh_l0"], self.weight_dropout, training=True
        )
        return functional_call(layer, weights, (input_BTD, state))


def layer_sizes(
    embedding_size: int, hidden_size: int, last_size: int, num_layers: int
) -> list[int]:
    """Input size, then each layer's; only the last may differ (Merity et al. 2018, section 4.5)."""
    return [embedding_size, *[hidden_size] * (num_layers - 1), last_size]


def detach_state(state: RecurrentState) -> RecurrentState:
    return [tuple(part.detach() for part in layer) for layer in state]
