"""The sizes of a MoLFormer, read from its tensors, and the shapes that follow from them."""

# D = hidden size, F = size of a head, W = feed-forward width, R = random features, V = vocabulary

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.hf.keys import HUGGING_FACE, OMEGA, num_layers_of

GENERATIVE_VOCABULARY = 2_488  # of GP-MoLFormer
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """What the options of an encoder say about its shape."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    feed_forward_size: int
    num_features: int

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    def shapes(self) -> Shapes:
        """Our names and shapes of the encoder and its output head."""
        V, D = self.vocab_size, self.hidden_size
        found: Shapes = {"trunk.embedding.weight": (V, D)}
        for layer in range(self.num_layers):
            found |= self._layer(f"trunk.blocks.{layer}")
        found |= {"trunk.norm.weight": (D,), "trunk.norm.bias": (D,)}
        for part, shape in (("transform", (D, D)), ("norm", (D,))):
            found[f"output_embedding.{part}.weight"] = shape
            found[f"output_embedding.{part}.bias"] = (D,)
        return found | {"output_embedding.weight": (V, D)}

    def num_parameters(self) -> int:
        """Of the encoder and its output head: V D + L (4 D^2 + 2 D W + 9 D + W) + 2 D + D^2 + 3 D + V D.

        46,781,184 for the published sizes; omega is no parameter.
        """
        V, D, W = self.vocab_size, self.hidden_size, self.feed_forward_size
        layer = 4 * D * D + 2 * D * W + 9 * D + W
        return 2 * V * D + self.num_layers * layer + D * D + 5 * D

    def _layer(self, name: str) -> Shapes:
        D, W, F, R = self.hidden_size, self.feed_forward_size, self.head_size, self.num_features
        matrices = {
            "attention.qkv": (3 * D, D),
            "attention.out": (D, D),
            "attention_norm": (D,),
            "feed_forward.widen": (W, D),
            "feed_forward.out": (D, W),
            "feed_forward_norm": (D,),
        }
        found: Shapes = {f"{name}.attention.features.omega": (F, R)}
        for part, shape in matrices.items():
            found |= {f"{name}.{part}.weight": shape, f"{name}.{part}.bias": shape[:1]}
        return found


def check_is_encoder(theirs: Mapping[str, Tensor], family: str, where: str) -> None:
    """Refuse the generative relative before any of its tensors is missed.

    Raises:
        UserError: for GP-MoLFormer's vocabulary.
    """
    name = "tok_emb.weight"
    if family == HUGGING_FACE:
        name = "molformer.embeddings.word_embeddings.weight"
    if theirs[name].shape[0] == GENERATIVE_VOCABULARY:
        raise generative(where)


def generative(where: str) -> UserError:
    return UserError(
        f"{where}: this is GP-MoLFormer (a causal decoder with {GENERATIVE_VOCABULARY:,} tokens), which shares "
        "the tensors' names but not their use. Give weights of the encoder, MoLFormer-XL."
    )


def sizes_of(weights: Mapping[str, Tensor], hints: Mapping[str, int], where: str) -> Sizes:
    """Sizes from our names; hints tell what no tensor shows when omega is absent.

    Args:
        hints: ``num_heads`` and ``num_features``, as far as the file says them.

    Raises:
        UserError: if the number of heads can be told from nothing, or is contradicted.
    """
    embedding_VD = weights["trunk.embedding.weight"]
    hidden_size = embedding_VD.shape[-1]
    omega_FR = weights.get(OMEGA.ours.format(i=0))
    num_heads, num_features = hints.get("num_heads", 0), hints.get("num_features", 0)
    if omega_FR is not None and omega_FR.dim() == 2 and 0 not in omega_FR.shape:
        from_omega = hidden_size // omega_FR.shape[0]
        if num_heads not in (0, from_omega):
            raise UserError(
                f"{where}: its settings say {num_heads} heads, its omega of shape {tuple(omega_FR.shape)} "
                f"belongs to {from_omega}. One of them is of another model."
            )
        num_heads, num_features = from_omega, omega_FR.shape[1]
    if num_heads < 1 or hidden_size % num_heads or num_features < 1:
        raise UserError(
            f"{where}: neither an omega nor its settings (n_head and num_feats, or config.json) say how many heads "
            "and random features it has. Put its config.json or hyper_parameters beside the weights."
        )
    return Sizes(
        vocab_size=embedding_VD.shape[0],
        hidden_size=hidden_size,
        num_layers=_num_blocks(weights),
        num_heads=num_heads,
        feed_forward_size=weights["trunk.blocks.0.feed_forward.widen.bias"].shape[0],
        num_features=num_features,
    )


def _num_blocks(weights: Mapping[str, Tensor]) -> int:
    blocks = [name.replace("trunk.blocks", "blocks.layers", 1) for name in weights]
    return num_layers_of(blocks)


def check_tensors(weights: Mapping[str, Tensor], sizes: Sizes, where: str) -> None:
    """Shapes, finite values, and an omega that was drawn.

    Raises:
        UserError: naming the first tensor that is wrong, and what it should be.
    """
    for name, shape in sizes.shapes().items():
        if name not in weights:
            continue
        tensor = weights[name]
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, in a model of {sizes.hidden_size} with "
                f"{sizes.num_layers} layers it is {shape}. The file mixes models or is damaged."
            )
        if not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{where}: {name} holds values that are not finite numbers.")
        if name.endswith("omega") and not tensor.is_meta and not bool(tensor.any()):
            raise UserError(
                f"{where}: {name} is all zero, as in a model that was never run: its attention would give only "
                "biases. Save the model after one forward pass, or give a trained checkpoint."
            )
