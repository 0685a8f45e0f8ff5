"""Bidirectional encoder: post-LN blocks with linear or softmax attention (Ross et al. 2022)."""

# B = sequences, T = tokens, L = layers, D = hidden size, H = heads

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.model.layers.bidirectional_attention import BidirectionalAttention
from lit_seqlm.model.layers.bit_dropout import BitDropout
from lit_seqlm.model.layers.encoder_block import EncoderBlock, PreNormEncoderBlock
from lit_seqlm.model.layers.encoder_positions import ENCODER_POSITIONS
from lit_seqlm.model.layers.half_rotary import NoRotation
from lit_seqlm.model.layers.packing import Packing
from lit_seqlm.model.layers.transformed_softmax import TransformedSoftmax
from lit_seqlm.model.output import Output

PAD_HANDLING = ("mask", "attend")
INITS = ("normal", "torch")
CHECKPOINTING = ("none", "blocks")
NORMS = ("both", "pre", "pre_bare", "post")
INIT_STD = 0.02

MakeAttention = Callable[..., BidirectionalAttention]


class EncoderTrunk(nn.Module):
    """Token embedding, blocks and norms: from tokens to a vector each.

    Args:
        norm: ``both``, post-LN blocks and a norm behind the last, as MoLFormer; ``pre``, pre-LN blocks and a
            norm behind the last, as Megatron's BERT; ``pre_bare``, the same without that last norm; ``post``, a
            norm on the embeddings and post-LN blocks, as BERT (Devlin et al. 2019).
        The others: as `Encoder`.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        feed_forward_size: int,
        attention: MakeAttention,
        positions: str,
        max_len: int,
        pad_handling: str,
        activation: str,
        dropout: float,
        embedding_dropout: float,
        feed_forward_dropout: str,
        layer_norm_eps: float,
        checkpointing: str,
        norm: str = "both",
    ):
        super().__init__()
        _check_words(positions=(positions, ENCODER_POSITIONS), pad_handling=(pad_handling, PAD_HANDLING),
                     checkpointing=(checkpointing, CHECKPOINTING), norm=(norm, NORMS))  # fmt: skip
        self.hidden_size = hidden_size
        self.pad_handling, self.checkpointing = pad_handling, checkpointing
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.positions = ENCODER_POSITIONS[positions](hidden_size, num_heads, max_len)
        layer_norm, nothing = nn.LayerNorm(hidden_size, layer_norm_eps), nn.Identity()
        self.embedding_norm = layer_norm if norm == "post" else nothing
        self.dropout = BitDropout(embedding_dropout)
        block = PreNormEncoderBlock if norm in ("pre", "pre_bare") else EncoderBlock
        sizes = (hidden_size, feed_forward_size, activation, dropout, feed_forward_dropout)
        self.blocks = nn.ModuleList(
            block(attention(hidden_size=hidden_size, num_heads=num_heads), *sizes, layer_norm_eps)
            for _ in range(num_layers)
        )
        self.norm = layer_norm if norm in ("both", "pre") else nothing

    def forward(
        self,
        tokens_BT: Tensor,
        valid_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D).

        Args:
            valid_BT: False on padding; null where there is none.
            segments_BT: of packed rows, the number of each token's sequence; padding has a number of its own, so
                that `valid_BT` is not needed.
        """
        packing = None if segments_BT is None else Packing.of(segments_BT)
        read_BT = tokens_BT if packing is None else tokens_BT.reshape(1, -1)
        hidden_TBD, rotation, seen_BT = self._begin(read_BT, valid_BT, packing)
        recompute = self.checkpointing == "blocks" and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute:
                hidden_TBD = checkpoint(
                    block, hidden_TBD, rotation, seen_BT, packing, use_reentrant=False
                )
            else:
                hidden_TBD = block(hidden_TBD, rotation, seen_BT, packing)
        hidden_TBD = self.norm(hidden_TBD)
        if packing is not None:
            return hidden_TBD[:, 0].unflatten(0, tokens_BT.shape)
        return hidden_TBD.transpose(0, 1)

    def attention_maps(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Attention weights (L, B, H, T, T): row m says where token m looks, and sums to one."""
        hidden_TBD, rotation, seen_BT = self._begin(tokens_BT, valid_BT)
        maps = []
        for block in self.blocks:
            assert isinstance(block, EncoderBlock)
            hidden_TBD, maps_BHTT = block.forward_with_maps(hidden_TBD, rotation, seen_BT)
            maps.append(maps_BHTT)
        return torch.stack(maps)

    def _begin(
        self, tokens_BT: Tensor, valid_BT: Tensor | None, packing: Packing | None = None
    ) -> tuple[Tensor, NoRotation, Tensor | None]:
        """What the first block reads, how all blocks turn heads, and the keys that they see."""
        embedded_TBD = self.positions.embed(self.embedding(tokens_BT.T), packing)
        length = len(embedded_TBD) if packing is None else packing.longest
        rotation = self.positions.rotation(length, embedded_TBD.device, embedded_TBD.dtype)
        seen_BT = valid_BT if self.pad_handling == "mask" else None
        return self.dropout(self.embedding_norm(embedded_TBD)), rotation, seen_BT


class Encoder(nn.Module):
    """A trunk, and the output embedding of masked language modelling behind it.

    Args:
        vocab_size: words.
        feed_forward_size: inner size of the position-wise layers.
        attention: makes the attention of a layer, given `hidden_size` and `num_heads`.
        positions: ``rotary``, ``absolute`` (a learned vector per position) or ``none``.
        max_len: positions of the learned table; rotary tables grow beyond it.
        pad_handling: ``mask`` leaves padding out of attention; ``attend`` does not, so that a
            sequence's hidden states depend on how far it is padded.
        activation: ``relu`` or ``gelu``.
        dropout: on what each half of a block adds; on attention weights see the attention.
        embedding_dropout: on what the first block reads.
        feed_forward_dropout: ``both``, also after the activation; ``output``, only at the end.
        layer_norm_eps: under the root of every norm.
        init: ``normal``, all matrices N(0, 0.02) and biases zero (Devlin et al. 2019); ``torch``,
            as the layers come.
        checkpointing: ``none``, or ``blocks``: recompute each block in the backward pass.

    Raises:
        UserError: for a word that is not accepted, and sizes that do not fit.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        feed_forward_size: int,
        attention: MakeAttention,
        positions: str,
        max_len: int,
        pad_handling: str,
        activation: str,
        dropout: float,
        embedding_dropout: float,
        feed_forward_dropout: str,
        layer_norm_eps: float,
        init: str,
        checkpointing: str,
    ):
        super().__init__()
        _check_words(init=(init, INITS))
        self.trunk = EncoderTrunk(
            vocab_size,
            hidden_size,
            num_layers,
            num_heads,
            feed_forward_size,
            attention,
            positions,
            max_len,
            pad_handling,
            activation,
            dropout,
            embedding_dropout,
            feed_forward_dropout,
            layer_norm_eps,
            checkpointing,
        )
        self.output_embedding = TransformedSoftmax(vocab_size, hidden_size, layer_norm_eps)
        initialise(self, init)

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


def initialise(module: nn.Module, init: str) -> None:
    """Fill the parameters of a model in place: see `init` of `Encoder`."""
    if init == "torch":
        for part in module.modules():
            if isinstance(part, TransformedSoftmax):  # what nn.Linear does
                bound = 1 / math.sqrt(part.weight.size(1))
                nn.init.uniform_(part.weight, -bound, bound)
        return
    for name, parameter in module.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=INIT_STD)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def _check_words(**choices: tuple[str, Any]) -> None:
    for name, (word, words) in choices.items():
        if word not in words:
            raise UserError(f"model.{name}={word}: {did_you_mean(word, words)}")
