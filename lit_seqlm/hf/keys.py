"""One table of names: ours, the official Lightning checkpoint's, the Hugging Face file's."""

# D = hidden size, F = size of a head, R = random features

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lit_seqlm.errors import UserError

OFFICIAL, HUGGING_FACE = "official", "hf"
FAMILIES = (OFFICIAL, HUGGING_FACE)
PARTS = ("query", "key", "value")  # of our fused projection, in its order
LAYER = re.compile(r"^(?:blocks\.layers|molformer\.encoder\.layer)\.(\d+)\.")
FREQUENCIES = "blocks.layers.{i}.attention.rotaryemb.inv_freq"
HUGGING_FACE_PARTS = ("molformer.", "lm_head.", "classifier.")
ROTARY_BASE = 10_000.0


class Key(NamedTuple):
    """One tensor; ``{i}`` stands for a layer and ``{part}`` for query, key and value, which are one tensor of ours."""

    ours: str
    official: str
    hf: str

    def theirs(self, family: str, layer: int) -> list[str]:
        """The names of what makes up our tensor, in order."""
        name = getattr(self, family)
        parts = PARTS if "{part}" in name else ("",)
        return [name.format(i=layer, part=part) for part in parts]


def _linear(ours: str, official: str, hf: str) -> list[Key]:
    return [Key(f"{ours}.{end}", f"{official}.{end}", f"{hf}.{end}") for end in ("weight", "bias")]


_US, _IBM, _HF = "trunk.blocks.{i}", "blocks.layers.{i}", "molformer.encoder.layer.{i}"
OMEGA = Key(
    f"{_US}.attention.features.omega",
    f"{_IBM}.attention.inner_attention.feature_map.omega",
    f"{_HF}.attention.self.feature_map.weight",
)
EACH_LAYER = [
    OMEGA,
    *_linear(
        f"{_US}.attention.qkv",
        f"{_IBM}.attention.{{part}}_projection",
        f"{_HF}.attention.self.{{part}}",
    ),
    *_linear(
        f"{_US}.attention.out", f"{_IBM}.attention.out_projection", f"{_HF}.attention.output.dense"
    ),
    *_linear(f"{_US}.attention_norm", f"{_IBM}.norm1", f"{_HF}.attention.output.LayerNorm"),
    *_linear(f"{_US}.feed_forward.widen", f"{_IBM}.linear1", f"{_HF}.intermediate.dense"),
    *_linear(f"{_US}.feed_forward.out", f"{_IBM}.linear2", f"{_HF}.output.dense"),
    *_linear(f"{_US}.feed_forward_norm", f"{_IBM}.norm2", f"{_HF}.output.LayerNorm"),
]
ONCE = [
    Key("trunk.embedding.weight", "tok_emb.weight", "molformer.embeddings.word_embeddings.weight"),
    *_linear("trunk.norm", "blocks.norm", "molformer.LayerNorm"),
]
OUTPUT_HEAD = [
    *_linear("output_embedding.transform", "lang_model.embed", "lm_head.transform.dense"),
    *_linear("output_embedding.norm", "lang_model.ln_f", "lm_head.transform.LayerNorm"),
    Key("output_embedding.weight", "lang_model.head.weight", "lm_head.decoder.weight"),
]
PROPERTY_HEAD = [
    *_linear("head.dense1", "net.fc1", "classifier.dense"),
    *_linear("head.dense2", "net.fc2", "classifier.dense2"),
    *_linear("head.out", "net.final", "classifier.out_proj"),
]


def rotary_frequencies(head_size: int) -> Tensor:
    """10000^(-2j / F) for j = 0 ... F/2 - 1, in float32 as the official code computes it."""
    exponents = torch.arange(0, head_size, 2).float() / head_size
    return 1.0 / (ROTARY_BASE**exponents)


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the ``module.`` of data-parallel training; base files get the leading ``molformer.`` that they lack."""
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if "embeddings.word_embeddings.weight" not in plain:
        return plain
    return {
        name if name.startswith(HUGGING_FACE_PARTS) else f"molformer.{name}": tensor
        for name, tensor in plain.items()
    }


def family_of(names: Iterable[str], where: str) -> str:
    """Which layout these plain names are in.

    Raises:
        UserError: if they are in neither.
    """
    names = list(names)
    for family in FAMILIES:
        if getattr(ONCE[0], family) in names:
            return family
    shown = ", ".join(names[:3]) or "none"
    raise UserError(
        f"{where}: these are not MoLFormer's weights. Its tensors are {shown}, ...; expected "
        f"{ONCE[0].official} (the official checkpoint) or {ONCE[0].hf} (Hugging Face)."
    )


def num_layers_of(names: Iterable[str]) -> int:
    """One more than the highest layer that a name of theirs speaks of."""
    found = [int(match[1]) for name in names if (match := LAYER.match(name))]
    return max(found, default=-1) + 1


def expected_keys(num_layers: int) -> list[tuple[Key, int]]:
    """All tensors of the encoder in the official file's order, each with its layer (0 outside the layers)."""
    layers = [(key, layer) for layer in range(num_layers) for key in EACH_LAYER]
    return [(ONCE[0], 0), *layers, *((key, 0) for key in ONCE[1:])]


def to_ours(tensors: Mapping[str, Tensor], family: str, where: str) -> dict[str, Tensor]:
    """Rename, fuse query, key and value, and drop the rotary frequencies after a check.

    Omega and whole heads may be absent; nothing else may, and nothing may be left over.

    Args:
        tensors: with plain names (see `plain_names`).
        where: names the file in messages.

    Raises:
        UserError: for a missing or an unknown tensor, by its name; for other rotary frequencies.
    """
    left = dict(tensors)
    ours: dict[str, Tensor] = {}
    wanted = [*expected_keys(num_layers_of(tensors))]
    for head in (OUTPUT_HEAD, PROPERTY_HEAD):
        if any(name in left for key in head for name in key.theirs(family, 0)):
            wanted += [(key, 0) for key in head]
    for key, layer in wanted:
        names = key.theirs(family, layer)
        missing = [name for name in names if name not in left]
        if missing and key == OMEGA:
            continue
        if missing:
            raise UserError(
                f"{where}: it has no {missing[0]}, so it is not a whole MoLFormer of the {family} layout. "
                "Is the file cut short, or of another program?"
            )
        parts = [left.pop(name) for name in names]
        ours[key.ours.format(i=layer)] = torch.cat(parts) if len(parts) > 1 else parts[0]
    _drop_frequencies(left, where)
    if left:
        raise UserError(
            f"{where}: {len(left)} tensors have no place in a MoLFormer encoder, the first is {next(iter(left))}. "
            "Weights of other models cannot be imported."
        )
    return ours


def from_ours(weights: Mapping[str, Tensor], family: str, head_size: int) -> dict[str, Tensor]:
    """Our names into theirs; query, key and value apart, rotary frequencies made anew where the family keeps them.

    Raises:
        UserError: for a tensor that the layout has no name for, or lacks.
    """
    num_layers = len({name.split(".")[2] for name in weights if name.startswith("trunk.blocks.")})
    left = dict(weights)
    theirs: dict[str, Tensor] = {}
    heads = [(key, 0) for key in (*OUTPUT_HEAD, *PROPERTY_HEAD) if key.ours in weights]
    for key, layer in [*expected_keys(num_layers), *heads]:
        name = key.ours.format(i=layer)
        if name not in left:
            raise UserError(
                f"the run's encoder has no {name}, which MoLFormer's layout needs. It holds rotary linear attention "
                "with random features: model.attention and model.positions of the run must be these."
            )
        names = key.theirs(family, layer)
        parts = left.pop(name).chunk(len(names))
        theirs |= {name: part.clone() for name, part in zip(names, parts, strict=True)}
        if key == OMEGA and family == OFFICIAL:
            theirs[FREQUENCIES.format(i=layer)] = rotary_frequencies(head_size)
    if left:
        raise UserError(f"MoLFormer's layout has no name for {next(iter(left))} of the run.")
    return theirs


def _drop_frequencies(left: dict[str, Tensor], where: str) -> None:
    for name in [name for name in left if name.endswith(".inv_freq")]:
        found = left.pop(name).float()
        if found.is_meta or torch.allclose(found, rotary_frequencies(2 * len(found)), rtol=1e-4):
            continue
        raise UserError(
            f"{where}: {name} are not the rotary frequencies of base 10,000, so positions would mean other things. "
            "Weights of other models cannot be imported."
        )
