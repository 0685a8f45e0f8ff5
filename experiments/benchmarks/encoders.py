"""What the molecule benchmark compares: our encoder, pytorch-fast-transformers' and BERT, of one size."""

# B = sequences, T = tokens, N = masked positions, D = hidden size, V = vocabulary

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from lit_seqlm.config import build, register
from lit_seqlm.data.batch import Batch
from lit_seqlm.regularizer.none import NoRegularizer

CONF = Path(__file__).resolve().parents[2] / "conf"
OURS, FAST, FAST_KEPT, BERT, PRODUCTS = (
    "ours",
    "fast-transformers",
    "fast-transformers, omega kept",
    "transformers BERT",
    "its matrix products alone",
)
VOCABULARY = 2362  # of MoLFormer, whatever the molecules
NEVER = 10**9  # forward passes until the features are drawn anew
IGNORED = -100  # a target that no loss counts
CLIP, LEARNING_RATE = 1.0, 1e-4


@dataclass(frozen=True)
class Sizes:
    """Of an encoder, as an option of conf/model has them."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    features: int
    dropout: float

    @classmethod
    def of(cls, model: str) -> "Sizes":
        cfg = config(model)
        return cls(
            cfg.hidden_size,
            cfg.num_layers,
            cfg.num_heads,
            cfg.feed_forward_size,
            cfg.attention.num_features,
            cfg.dropout,
        )


@cache
def config(model: str) -> Any:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        words = [
            f"model={model}",
            "objective=masked_lm",
            "model.embedding_dropout=${model.dropout}",
        ]
        return compose("config", overrides=words).model


class Ours(nn.Module):
    """The encoder of this program with its loss, which computes logits at masked positions alone."""

    def __init__(self, model: str):
        super().__init__()
        self.encoder = build(config(model), vocab_size=VOCABULARY)
        register()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            self.objective = build(compose("config", overrides=["objective=masked_lm"]).objective)

    def forward(self, batch: Batch) -> Tensor:
        return self.encoder.trunk(batch.tokens_BT, batch.valid_BT)

    def loss(self, batch: Batch) -> Tensor:
        output = self.encoder(batch.tokens_BT, None, batch.valid_BT)
        return self.objective(output, self.encoder.output_embedding, batch, NoRegularizer()).mean


class Fast(nn.Module):
    """The encoder of pytorch-fast-transformers in MoLFormer's configuration, with MoLFormer's output layer.

    It has no rotary positions, which MoLFormer adds to it, so it does less than ours. Logits are computed at every
    position. As it comes, it draws the features anew at each forward pass.

    Args:
        redraw: forward passes from one draw to the next.
    """

    def __init__(self, model: str, redraw: int):
        super().__init__()
        sizes = Sizes.of(model)
        self.embedding = nn.Embedding(VOCABULARY, sizes.hidden)
        self.dropout = nn.Dropout(sizes.dropout)
        self.encoder = fast_encoder(sizes, sizes.layers, redraw)
        self.head = nn.Sequential(
            nn.Linear(sizes.hidden, sizes.hidden),
            nn.GELU(),
            nn.LayerNorm(sizes.hidden),
            nn.Linear(sizes.hidden, VOCABULARY, bias=False),
        )

    def forward(self, batch: Batch) -> Tensor:
        from fast_transformers.masking import LengthMask

        length = batch.tokens_BT.size(1)
        lengths_B = torch.full((batch.tokens_BT.size(0),), length)
        if batch.valid_BT is not None:
            lengths_B = batch.valid_BT.sum(1)
        embedded_BTD = self.dropout(self.embedding(batch.tokens_BT))
        return self.encoder(embedded_BTD, length_mask=LengthMask(lengths_B, max_len=length))

    def loss(self, batch: Batch) -> Tensor:
        logits_BTV = self.head(self(batch))
        return F.cross_entropy(
            logits_BTV.flatten(0, 1), masked_targets(batch).flatten(), ignore_index=IGNORED
        )


class Bert(nn.Module):
    """BERT for masked language modelling with SDPA, its output embedding untied as MoLFormer's is."""

    def __init__(self, model: str):
        super().__init__()
        from transformers import BertForMaskedLM

        self.bert = BertForMaskedLM(bert_config(Sizes.of(model)))

    def forward(self, batch: Batch) -> Tensor:
        return self.bert.bert(batch.tokens_BT, attention_mask=batch.valid_BT).last_hidden_state

    def loss(self, batch: Batch) -> Tensor:
        return self.bert(
            batch.tokens_BT, attention_mask=batch.valid_BT, labels=masked_targets(batch)
        ).loss


def fast_encoder(sizes: Sizes, num_layers: int, redraw: int) -> nn.Module:
    """The peer's own builder; the features are relu(x omega), omega orthogonal, as MoLFormer has them."""
    from fast_transformers.builders import TransformerEncoderBuilder
    from fast_transformers.feature_maps import GeneralizedRandomFeatures

    warnings.filterwarnings(
        "ignore", "torch.qr is deprecated"
    )  # at each draw, from inside the peer
    return TransformerEncoderBuilder.from_kwargs(
        n_layers=num_layers,
        n_heads=sizes.heads,
        query_dimensions=sizes.hidden // sizes.heads,
        value_dimensions=sizes.hidden // sizes.heads,
        feed_forward_dimensions=sizes.feed_forward,
        attention_type="linear",
        feature_map=GeneralizedRandomFeatures.factory(n_dims=sizes.features, redraw=redraw),
        activation="gelu",
        dropout=sizes.dropout,
    ).get()


def bert_config(sizes: Sizes) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.feed_forward,
        hidden_dropout_prob=sizes.dropout,
        attention_probs_dropout_prob=0.0,  # the linear ones have none either
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


WHOLE: dict[str, Callable[[str], nn.Module]] = {
    OURS: Ours,
    FAST: lambda model: Fast(model, redraw=1),
    FAST_KEPT: lambda model: Fast(model, redraw=NEVER),
    BERT: Bert,
}


def one_layer(name: str, model: str, length: int) -> "Layer":
    """A layer alone, from (B, T, D) to (B, T, D); no padding, as there is none at one length."""
    sizes = Sizes.of(model)
    if name == OURS:
        trunk = build({**config(model), "num_layers": 1}, vocab_size=VOCABULARY).trunk
        rotation = trunk.positions.rotation(length, torch.device("cpu"), torch.float32)
        return TokensFirst(trunk.blocks[0], rotation, None)
    if name == BERT:
        from transformers.models.bert.modeling_bert import BertLayer

        return Layer(BertLayer(bert_config(sizes)))
    if name == PRODUCTS:
        return Layer(Products(sizes))
    encoder: Any = fast_encoder(sizes, 1, 1 if name == FAST else NEVER)
    return Layer(encoder.layers[0])


class Products(nn.Module):
    """The weights' products of a layer and nothing else: what no implementation can leave out."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.heads = nn.Linear(sizes.hidden, 3 * sizes.hidden)
        self.mix = nn.Linear(sizes.hidden, sizes.hidden)
        self.inner = nn.Linear(sizes.hidden, sizes.feed_forward)
        self.outer = nn.Linear(sizes.feed_forward, sizes.hidden)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        values_BTD = self.heads(hidden_BTD).chunk(3, -1)[2]
        return self.outer(self.inner(self.mix(values_BTD)))


class Layer(nn.Module):
    """A layer, and what it reads beside hidden states."""

    def __init__(self, layer: nn.Module, *more: Any):
        super().__init__()
        self.layer, self.more = layer, more

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        found = self.layer(hidden_BTD, *self.more)
        return found[0] if isinstance(found, tuple) else found


class TokensFirst(Layer):
    """A layer that works on (T, B, D), as its trunk keeps hidden states: noise is read as that, without a copy."""

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        num_sequences, length, size = hidden_BTD.shape
        return super().forward(hidden_BTD.view(length, num_sequences, size)).view_as(hidden_BTD)


def masked_targets(batch: Batch) -> Tensor:
    """As the peers want them: the positions that do not count have a target of their own."""
    assert batch.mask_BT is not None
    return batch.targets_BT.masked_fill(~batch.mask_BT, IGNORED)
