"""A published protein model as it was read: tensors under our names, and what its file says beside them."""

# V = rows of an embedding, D = hidden size, P = positions

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.hf.pickled import read_pickled
from lit_seqlm.hf.proteins import tape
from lit_seqlm.hf.proteins.keys import (
    LAYOUTS,
    MEGATRON,
    TAPE,
    layout_of,
    num_layers_of,
    plain_names,
    to_ours,
)
from lit_seqlm.hf.proteins.megatron import Read, is_megatron, read_megatron
from lit_seqlm.hf.proteins.rows import DIVISIBLE_BY, check_rows

FINAL_LN = ("apply", "literal")
# Megatron's word for an option of ours; hidden dropout is also that of the embeddings.
NUMBERS = {
    "layernorm_epsilon": ("layer_norm_eps",),
    "hidden_dropout": ("dropout", "embedding_dropout"),
    "attention_dropout": ("attention.dropout",),
}
SIZES = {
    "padded_vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "ffn_hidden_size": "feed_forward_size",
    "max_position_embeddings": "max_len",
}
# What Megatron can compute and our encoder cannot; None where the file does not say.
REFUSED = {"openai_gelu": True, "apply_residual_connection_post_layernorm": True}


@dataclass(frozen=True)
class Sizes:
    """Of their encoder; `vocab_size` are rows of its embedding."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    feed_forward_size: int
    max_len: int


@dataclass
class Source:
    """What was read.

    Attributes:
        weights: under our names, rows of the embedding still in their order.
        model: options of ours that the file decides, beside the sizes.
        beside: tensors that have no place in our encoder, under their names.
        said: what else decides how the file was read; for the report.
        notes: one sentence each.
    """

    layout: str
    files: list[Path]
    weights: dict[str, Tensor]
    sizes: Sizes
    model: dict[str, float | str]
    num_read: int
    beside: dict[str, Tensor] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_source(
    origin: str, layout: str, final_ln: str, version: float | None, num_heads: int | None
) -> Source:
    """Read a file or a folder in either layout.

    Args:
        layout: ``megatron``, ``tape`` or ``auto``.
        final_ln: ``apply``; ``literal``, for Megatron's alone: as ProteinLM's downstream code reads them.
        version: ``checkpoint_version`` of a Megatron file that does not say it.
        num_heads: where neither args nor config.json say it.

    Raises:
        UserError: for what is not a whole ProteinLM or TAPE encoder.
    """
    if layout not in (*LAYOUTS, "auto"):
        raise UserError(f"--layout {layout}: {did_you_mean(layout, (*LAYOUTS, 'auto'))}")
    if final_ln not in FINAL_LN:
        raise UserError(f"--final-ln {final_ln}: {did_you_mean(final_ln, FINAL_LN)}")
    path = Path(origin)
    if not path.exists():
        raise UserError(f"no such file or folder: {path}. Give what you have downloaded.")
    found = MEGATRON if _holds_megatron(path) else TAPE
    if layout not in ("auto", found):
        raise UserError(
            f"--layout {layout}: {path} is in the {found} layout. Leave --layout out, or say --layout {found}."
        )
    if found == MEGATRON:
        return _from_megatron(read_megatron(path, version, num_heads), final_ln)
    if final_ln != "apply" or version is not None:
        raise UserError(
            f"{path} is in TAPE's layout, which has neither a final norm nor a checkpoint_version. Leave --final-ln "
            "and --checkpoint-version out."
        )
    return _from_tape(tape.weight_file(path), num_heads)


def _holds_megatron(path: Path) -> bool:
    if is_megatron(path):
        return True
    if path.is_dir() or path.suffix == ".safetensors":
        return False
    model = read_pickled(path).get("model")
    return isinstance(model, dict) and "language_model" in model


def _from_megatron(read: Read, final_ln: str) -> Source:
    where, options = str(read.files[0]), read.options
    for name, value in REFUSED.items():
        if options.get(name) == value:
            raise UserError(
                f"{where}: its args say {name}={value}; ProteinLM's scripts do not, and this program cannot."
            )
    layout_of(read.tensors, where)
    weights = to_ours(read.tensors, MEGATRON, where)
    sizes = sizes_of(weights, options["num_attention_heads"], where)
    _check_said(options, SIZES, sizes, f"{where}: its args")
    multiple = options.get("make_vocab_size_divisible_by") or DIVISIBLE_BY
    check_rows(MEGATRON, sizes.vocab_size, multiple, len(read.files), where)
    # Megatron computes bias and GELU in one kernel unless it is told not to, and by tanh.
    fused = bool(options.get("bias_gelu_fusion", True))
    literal = final_ln == "literal"
    model = _numbers(options, NUMBERS, f"{where}: its args") | {
        "norm": "pre_bare" if literal else "pre",
        "activation": "gelu_tanh" if fused and not literal else "gelu",
    }
    notes = []
    if not read.has_version:
        notes.append(
            f"The file has no checkpoint_version; it was read as {read.version:g}, as Megatron reads such files. "
            "ProteinLM's code writes 3: if somebody saved the file again without it, say --checkpoint-version 3."
        )
    if "bias_gelu_fusion" not in options and not literal:
        notes.append(
            "The file has no args: GELU was taken to be by tanh, as Megatron's is usually."
        )
    said = {"final_ln": final_ln, "checkpoint_version": read.version, "ranks": len(read.files)}
    source = Source(MEGATRON, read.files, weights, sizes, model, len(read.tensors), {}, said, notes)
    return _without_final_ln(source) if literal else source


def _without_final_ln(source: Source) -> Source:
    kept = [name for name in source.weights if name.startswith("trunk.norm.")]
    source.beside = {name: source.weights.pop(name) for name in kept}
    source.notes.append(
        "final_ln=literal: the final norm is left out and GELU is exact, as in the code that ProteinLM's downstream "
        "numbers come from. The output head was trained behind that norm: masked tokens are not predicted well."
    )
    return source


def _from_tape(path: Path, num_heads: int | None) -> Source:
    where = str(path)
    tensors = plain_names(tape.read_tensors(path))
    settings = tape.read_settings(path)
    layout_of(tensors, where)
    heads = settings.get("num_attention_heads", num_heads)
    if not isinstance(heads, int) or heads < 1:
        raise UserError(
            f"{where}: there is no config.json beside it that says num_attention_heads, and no tensor shows it. Say "
            "--heads 12, if this is bert-base."
        )
    left, beside = tape.without_beside(tensors, where)
    weights = to_ours(left, TAPE, where)
    sizes = sizes_of(weights, heads, where)
    _check_said(settings, tape.SIZES, sizes, f"{where}: {tape.SETTINGS} beside it")
    check_rows(TAPE, sizes.vocab_size, 1, 1, where)
    model = _numbers(settings, tape.NUMBERS, f"{where}: {tape.SETTINGS} beside it")
    notes = ["Token type 0 is added to every position: a sequence has no other type."]
    if beside:
        notes.append(
            "The pooler is no part of our encoder and is kept apart. Masked tokens do not train it; "
            "head=sequence_tape_torch begins with a new one."
        )
    if not settings:
        notes.append("There is no config.json beside the weights: its usual values were taken.")
    return Source(TAPE, [path], weights, sizes, model, len(tensors), beside, {}, notes)


def sizes_of(weights: Mapping[str, Tensor], num_heads: int, where: str) -> Sizes:
    """Read from tensors under our names."""
    embedding_VD, positions_PD = weights["trunk.embedding.weight"], weights["trunk.positions.weight"]  # fmt: skip
    widen_W = weights["trunk.blocks.0.feed_forward.widen.bias"]
    if (embedding_VD.dim(), positions_PD.dim(), widen_W.dim()) != (2, 2, 1):
        raise UserError(f"{where}: its embeddings are no matrices. The file is damaged.")
    (rows, size), places, width = embedding_VD.shape, len(positions_PD), len(widen_W)
    return Sizes(rows, size, num_layers_of(weights), num_heads, width, places)


def _check_said(
    options: Mapping[str, Any], names: Mapping[str, str], sizes: Sizes, where: str
) -> None:
    """Raise UserError where a file and its tensors tell of different models."""
    for theirs, ours in names.items():
        found = getattr(sizes, ours)
        if options.get(theirs) not in (None, found):
            raise UserError(
                f"{where} says {theirs}={options[theirs]}, its tensors say {found}. The file mixes models, or is "
                "damaged."
            )


def _numbers(
    options: Mapping[str, Any], names: Mapping[str, tuple[str, ...]], where: str
) -> dict[str, float | str]:
    """Options of ours that theirs decide: numbers, nothing that could be more."""
    found: dict[str, float | str] = {}
    for theirs, ours in names.items():
        value = options.get(theirs)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where} says {theirs}={value!r}, which is no number.")
        found |= dict.fromkeys(ours, value)
    return found
