"""Causal transformer decoder: pre-LN blocks (Radford et al. 2019; Baevski and Auli 2019)."""

# B = sequences, T = tokens, D = hidden size, H = heads, L = room of a cache, F = size of a head

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.attention import CausalSelfAttention, Context, KeyValueCache
from lit_seqlm.model.layers.dropout import DroppedEmbedding
from lit_seqlm.model.layers.feed_forward import FeedForward
from lit_seqlm.model.layers.positions import POSITIONS, Positions, Rotation
from lit_seqlm.model.layers.softmax import output_softmax
from lit_seqlm.model.output import Output


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): "pre-LN" (Xiong et al. 2020)."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        feed_forward_size: int,
        activation: str,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ):
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = CausalSelfAttention(hidden_size, num_heads, attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden_size)
        self.feed_forward = FeedForward(
            hidden_size, feed_forward_size, activation, activation_dropout
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BTD: Tensor, rotation: Rotation, context: Context) -> Tensor:
        attended_BTD = self.attention(self.attention_norm(hidden_BTD), rotation, context)
        hidden_BTD = hidden_BTD + self.dropout(attended_BTD)
        return hidden_BTD + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_BTD)))


class Decoder(nn.Module):
    """Token embedding, blocks, final norm, output embedding: each can be run by itself.

    Without a state every call is a fresh context and no state comes back. With `empty_cache` the
    tokens are appended to what the cache holds: a text may be given whole, in pieces, or by tokens.

    Args:
        vocab_size: words.
        feed_forward_size: inner size of the position-wise layers.
        positions: ``rotary`` or ``sinusoidal``.
        activation: ``relu`` or ``gelu``.
        dropout: on embeddings and on what each half of a block adds.
        attention_dropout, activation_dropout: on attention weights; after the activation.
        embedding: ``tied`` shares the input and output matrices, ``untied`` does not.
        cutoffs: cluster bounds of an adaptive softmax; null for a dense one.
        input_noise: standard deviation of Gaussian noise on the embeddings, which here have unit
            variance, as they are scaled by sqrt(D) (Vaswani et al. 2017, section 3.4).
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        feed_forward_size: int,
        positions: str,
        activation: str,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        embedding: str,
        cutoffs: list[int] | None,
        input_noise: float,
    ):
        super().__init__()
        if positions not in POSITIONS:
            raise UserError(f"model.positions={positions}: choose one of {', '.join(POSITIONS)}")
        self.num_heads = num_heads
        self.scale = math.sqrt(hidden_size)
        self.embedding = DroppedEmbedding(vocab_size, hidden_size, 0.0, input_noise / self.scale)
        self.positions: Positions = POSITIONS[positions](hidden_size, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            DecoderBlock(
                hidden_size,
                num_heads,
                feed_forward_size,
                activation,
                dropout,
                attention_dropout,
                activation_dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.output_embedding = output_softmax(self.embedding, embedding, cutoffs)
        self._initialise()

    def forward(self, tokens_BT: Tensor, state: Sequence[Context] | None = None) -> Output:
        contexts = [Context() for _ in self.blocks] if state is None else state
        start = contexts[0].length
        positions_T = torch.arange(start, start + tokens_BT.size(1), device=tokens_BT.device)
        hidden_BTD = self.embed(tokens_BT, positions_T)
        rotation = self.positions.rotation(positions_T, hidden_BTD.dtype)
        for block, context in zip(self.blocks, contexts, strict=True):
            hidden_BTD = block(hidden_BTD, rotation, context)
        hidden_BTD = self.norm(hidden_BTD)
        return Output(hidden_BTD, state, hidden_BTD)

    def embed(self, tokens_BT: Tensor, positions_T: Tensor) -> Tensor:
        """What the first block reads, (B, T, D)."""
        return self.dropout(
            self.positions.embed(self.embedding(tokens_BT) * self.scale, positions_T)
        )

    def key_modules(self) -> dict[str, nn.Module]:
        """States that memories may compare, beside the output (see `lit_seqlm.task.keys`)."""
        last = self.blocks[-1]
        assert isinstance(last, DecoderBlock)
        return {"ffn_input": last.feed_forward_norm, "embedding": self.embedding}

    def empty_cache(self, batch_size: int, max_len: int) -> list[KeyValueCache]:
        """A state for `forward`, with room for `max_len` tokens; filled in place and returned."""
        weight = self.norm.weight
        shape = (2, batch_size, self.num_heads, max_len, weight.numel() // self.num_heads)
        return [KeyValueCache(*weight.new_zeros(shape).unbind(0)) for _ in self.blocks]

    @staticmethod
    def detach(state: Sequence[Context]) -> Sequence[Context]:
        return state  # a cache holds no gradients

    def _initialise(self) -> None:
        """Embeddings of variance 1 / D, and residual branches whose sum is O(1).

        A tied model so begins by predicting the word it has just read, worse than uniformly; a
        final norm of gain 1 / sqrt(D) avoids that but was behind after 100 steps of Adam.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("embedding.weight"):
                nn.init.normal_(parameter, std=1 / self.scale)
            elif parameter.dim() == 2 and name.startswith("blocks"):
                nn.init.xavier_uniform_(parameter)
                if name.endswith("out.weight"):  # GPT-2: 1 / sqrt(number of branches)
                    parameter.data.div_(math.sqrt(2 * len(self.blocks)))
            elif name.startswith("blocks") and name.endswith("bias"):
                nn.init.zeros_(parameter)
