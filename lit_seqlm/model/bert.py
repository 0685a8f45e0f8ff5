"""BERT for sequences of a small vocabulary: the encoder of TAPE and of ProteinLM (Xiao et al. 2021)."""

# B = sequences, T = tokens, D = hidden size

import math

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.encoder import EncoderTrunk, MakeAttention, initialise
from lit_seqlm.model.layers.transformed_softmax import TransformedSoftmax
from lit_seqlm.model.output import Output

NORMS = ("pre", "pre_bare", "post")


class Bert(nn.Module):
    """An encoder whose output embedding is tied to its input embedding.

    ``norm=pre`` is Megatron's BERT as ProteinLM trains it (`megatron/model/bert_model.py`): pre-LN blocks, a final
    norm, no token types, no pooler; outputs of residual branches begin smaller by sqrt(2 layers). ``norm=pre_bare``
    lacks the final norm, as ProteinLM's downstream code, which computes it and throws it away. ``norm=post`` is
    BERT's own (Devlin et al. 2019), as TAPE has it.

    Args:
        vocab_size: words.
        vocab_multiple: the matrices have rows for so many words more as make this divide them; the published
            models' have 128.
        norm: ``pre``, ``pre_bare`` or ``post``.
        The others: as `lit_seqlm.model.encoder.Encoder`.

    Raises:
        UserError: for a word that is not accepted, and sizes that do not fit.
    """

    def __init__(
        self,
        vocab_size: int,
        vocab_multiple: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        feed_forward_size: int,
        attention: MakeAttention,
        norm: str,
        positions: str,
        max_len: int,
        pad_handling: str,
        activation: str,
        dropout: float,
        embedding_dropout: float,
        feed_forward_dropout: str,
        layer_norm_eps: float,
        checkpointing: str,
    ):
        super().__init__()
        if norm not in NORMS:
            raise UserError(f"model.norm={norm}: choose {' or '.join(NORMS)}.")
        num_rows = -(-vocab_size // vocab_multiple) * vocab_multiple
        self.trunk = EncoderTrunk(
            num_rows, hidden_size, num_layers, num_heads, feed_forward_size, attention, positions,
            max_len, pad_handling, activation, dropout, embedding_dropout, feed_forward_dropout,
            layer_norm_eps, checkpointing, norm,
        )  # fmt: skip
        self.output_embedding = TransformedSoftmax(
            num_rows, hidden_size, layer_norm_eps, self.trunk.embedding
        )
        initialise(self, "normal")
        if norm != "post":
            self._shrink_branches(num_layers)

    def forward(
        self,
        tokens_BT: Tensor,
        state: None = None,
        valid_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> Output:
        hidden_BTD = self.trunk(tokens_BT, valid_BT, segments_BT)
        return Output(hidden_BTD, None, hidden_BTD)

    @staticmethod
    def detach(state: None) -> None:
        return None  # nothing is carried from one batch to the next

    @torch.no_grad()
    def _shrink_branches(self, num_layers: int) -> None:
        """N(0, 0.02 / sqrt(2 layers)) for what a residual branch ends with (Megatron's scaled initialisation)."""
        for name, parameter in self.trunk.blocks.named_parameters():
            if name.endswith("out.weight"):
                parameter.div_(math.sqrt(2 * num_layers))
