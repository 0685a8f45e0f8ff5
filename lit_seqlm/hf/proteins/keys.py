"""One table of names: ours, those of a Megatron checkpoint of ProteinLM, those of TAPE's bert-base."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lit_seqlm.errors import UserError

MEGATRON, TAPE = "megatron", "tape"
LAYOUTS = (MEGATRON, TAPE)
PARTS = ("query", "key", "value")  # of our fused projection, in its order
LAYER = re.compile(r"(?:trunk\.blocks|\.transformer\.layers|\.encoder\.layer)\.(\d+)\.")
TAPE_BASE = ("embeddings.", "encoder.", "pooler.")  # names of a file without an output head
SHOWN = 5  # names in a message


class Key(NamedTuple):
    """One tensor of ours.

    ``{i}`` stands for a layer, ``{part}`` for query, key and value, which are one tensor of ours.

    Attributes:
        megatron, tape: its name there; empty where the layout has no such tensor.
        shared: how Megatron's ranks share it: each has some ``rows``, some ``columns``, some ``heads`` (of queries,
            keys and values), or the ``whole``.
    """

    ours: str
    megatron: str
    tape: str
    shared: str = "whole"

    def theirs(self, layout: str, layer: int) -> list[str]:
        """The names of what makes up our tensor, in order; none where the layout has nothing."""
        name = getattr(self, layout)
        if not name:
            return []
        parts = PARTS if "{part}" in name else ("",)
        return [name.format(i=layer, part=part) for part in parts]


def _pair(ours: str, megatron: str, tape: str, weight: str = "whole", bias: str = "") -> list[Key]:
    """A weight and its bias, which is shared as the weight unless it is said how."""
    ends = (("weight", weight), ("bias", bias or weight))
    return [
        Key(f"{ours}.{end}", megatron and f"{megatron}.{end}", tape and f"{tape}.{end}", shared)
        for end, shared in ends
    ]


_US, _PLM, _TAPE = (
    "trunk.blocks.{i}",
    "language_model.transformer.layers.{i}",
    "bert.encoder.layer.{i}",
)
_THERE = "language_model.embedding"
BEGIN = [
    Key(
        "trunk.embedding.weight",
        f"{_THERE}.word_embeddings.weight",
        "bert.embeddings.word_embeddings.weight",
        "rows",
    ),
    Key(
        "trunk.positions.weight",
        f"{_THERE}.position_embeddings.weight",
        "bert.embeddings.position_embeddings.weight",
    ),
    *_pair("trunk.embedding_norm", "", "bert.embeddings.LayerNorm"),
]
# fmt: off
EACH_LAYER = [
    *_pair(f"{_US}.attention.qkv", f"{_PLM}.attention.query_key_value", f"{_TAPE}.attention.self.{{part}}", "heads"),
    *_pair(f"{_US}.attention.out", f"{_PLM}.attention.dense", f"{_TAPE}.attention.output.dense", "columns", "whole"),
    *_pair(f"{_US}.attention_norm", f"{_PLM}.input_layernorm", f"{_TAPE}.attention.output.LayerNorm"),
    *_pair(f"{_US}.feed_forward.widen", f"{_PLM}.mlp.dense_h_to_4h", f"{_TAPE}.intermediate.dense", "rows"),
    *_pair(f"{_US}.feed_forward.out", f"{_PLM}.mlp.dense_4h_to_h", f"{_TAPE}.output.dense", "columns", "whole"),
    *_pair(f"{_US}.feed_forward_norm", f"{_PLM}.post_attention_layernorm", f"{_TAPE}.output.LayerNorm"),
]
# fmt: on
END = _pair("trunk.norm", "language_model.transformer.final_layernorm", "")
OUTPUT_HEAD = [
    *_pair("output_embedding.transform", "lm_head.dense", "mlm.transform.dense"),
    *_pair("output_embedding.norm", "lm_head.layernorm", "mlm.transform.LayerNorm"),
    Key("output_embedding.bias", "lm_head.bias", "mlm.bias", "rows"),
]
# What TAPE has beside: folded into our positions; the embedding again; a layer that no masked token trains.
TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"
DECODER = "mlm.decoder.weight"
POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
TIED = "output_embedding.weight"  # of ours: the embedding again


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the ``module.`` of data-parallel training; TAPE's base files get the leading ``bert.`` that they lack."""
    plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return {
        f"bert.{name}" if name.startswith(TAPE_BASE) else name: tensor
        for name, tensor in plain.items()
    }


def layout_of(names: Iterable[str], where: str) -> str:
    """Which layout these plain names are in.

    Raises:
        UserError: if they are in neither.
    """
    names = list(names)
    for layout in LAYOUTS:
        if getattr(BEGIN[0], layout) in names:
            return layout
    raise UserError(
        f"{where}: these are neither ProteinLM's weights nor TAPE's. Its tensors are {_listed(names)}; expected "
        f"{BEGIN[0].megatron} (Megatron) or {BEGIN[0].tape} (TAPE's bert-base)."
    )


def num_layers_of(names: Iterable[str]) -> int:
    """One more than the highest layer that a name of theirs, or of ours, speaks of."""
    found = [int(match[1]) for name in names if (match := LAYER.search(name))]
    return max(found, default=-1) + 1


def expected_keys(layout: str, num_layers: int) -> list[tuple[Key, int]]:
    """All tensors of the encoder in this layout, each with its layer (0 outside the layers)."""
    layers = [(key, layer) for layer in range(num_layers) for key in EACH_LAYER]
    keys = [*((key, 0) for key in BEGIN), *layers, *((key, 0) for key in END)]
    return [(key, layer) for key, layer in keys if getattr(key, layout)]


def to_ours(tensors: Mapping[str, Tensor], layout: str, where: str) -> dict[str, Tensor]:
    """Rename; fuse query, key and value where they are apart. The output head may be absent as a whole.

    Args:
        tensors: with plain names, and without what the layout has beside (see `POOLER` and the like).
        where: names the file in messages.

    Raises:
        UserError: naming the tensors that are missing, and those that have no place.
    """
    left = dict(tensors)
    wanted = expected_keys(layout, num_layers_of(tensors))
    if any(name in left for key in OUTPUT_HEAD for name in key.theirs(layout, 0)):
        wanted += [(key, 0) for key in OUTPUT_HEAD]
    places = [(key.ours.format(i=layer), key.theirs(layout, layer)) for key, layer in wanted]
    missing = [name for _, names in places for name in names if name not in left]
    if not num_layers_of(tensors):
        missing.append(EACH_LAYER[0].theirs(layout, 0)[0])
    known = {name for _, names in places for name in names}
    unexpected = [name for name in left if name not in known]
    if missing or unexpected:
        told = [f"it lacks {len(missing)} tensors, {_listed(missing)}"] * bool(missing)
        told += [f"{len(unexpected)} have no place, {_listed(unexpected)}"] * bool(unexpected)
        raise UserError(
            f"{where}: this is not a whole encoder of the {layout} layout: {'; '.join(told)}. Give the pretrained "
            "model itself; weights of other models, and of other heads, cannot be imported."
        )
    parts = {ours: [left[name] for name in names] for ours, names in places}
    return {ours: torch.cat(found) if len(found) > 1 else found[0] for ours, found in parts.items()}


def from_ours(weights: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Our names into theirs, query, key and value apart.

    Raises:
        UserError: for a tensor that the layout has no name for, or lacks.
    """
    left = dict(weights)
    heads = [(key, 0) for key in OUTPUT_HEAD if key.ours in weights]
    theirs: dict[str, Tensor] = {}
    for key, layer in [*expected_keys(layout, num_layers_of(weights)), *heads]:
        name = key.ours.format(i=layer)
        if name not in left:
            raise UserError(f"the run's encoder has no {name}, which the {layout} layout needs.")
        names = key.theirs(layout, layer)
        parts = left.pop(name).chunk(len(names))
        theirs |= {name: part.clone() for name, part in zip(names, parts, strict=True)}
    if left:
        raise UserError(f"the {layout} layout has no name for {_listed(list(left))} of the run.")
    return theirs


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
