"""Reading TAPE's bert-base: pytorch_model.bin and config.json, as songlab-cal/tape has them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.hf.pickled import read_pickled, weights_in
from lit_seqlm.hf.proteins.keys import BEGIN, DECODER, POOLER, TOKEN_TYPES

WEIGHTS, SETTINGS = "pytorch_model.bin", "config.json"
WEIGHT_FILES = (
    WEIGHTS,
    f"bert-base-{WEIGHTS}",
    "model.safetensors",
)  # the second: as TAPE's server calls it
# config.json's word for an option of ours; dropout of hidden states is also that of the embeddings.
NUMBERS = {
    "layer_norm_eps": ("layer_norm_eps",),
    "hidden_dropout_prob": ("dropout", "embedding_dropout"),
    "attention_probs_dropout_prob": ("attention.dropout",),
}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "feed_forward_size",
    "max_position_embeddings": "max_len",
}
FIXED = {"hidden_act": "gelu"}


def weight_file(path: Path) -> Path:
    """The file itself, or what a folder has.

    Raises:
        UserError: where there is none.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if found is None:
        raise UserError(
            f"{path} has none of {', '.join(WEIGHT_FILES)}, and no mp_rank_00. Give TAPE's folder, or the folder of "
            "a Megatron checkpoint."
        )
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, under its own names."""
    if path.suffix != ".safetensors":
        return dict(weights_in(read_pickled(path), path))
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable .safetensors file ({error}).") from None


def read_settings(weights: Path) -> dict[str, Any]:
    """The config.json beside a file of weights; empty if there is none.

    Raises:
        UserError: if it is not readable, or tells of another model.
    """
    prefix = weights.name.removesuffix(WEIGHTS) if weights.name.endswith(WEIGHTS) else ""
    beside = (weights.with_name(name) for name in (f"{prefix}{SETTINGS}", SETTINGS))
    path = next((file for file in beside if file.is_file()), None)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}).") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings: a JSON object is expected.")
    for key, known in FIXED.items():
        if found.get(key, known) != known:
            raise UserError(f"{path} says {key}={found[key]}; only {key}={known} can be imported.")
    return found


def without_beside(
    tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What becomes tensors of ours, and the pooler, which does not.

    Token type 0, which every token of one sequence has, is added to each position. The decoder is the embedding
    again and must be.

    Raises:
        UserError: for a decoder of its own, and token types of another width.
    """
    left = dict(tensors)
    beside = {name: left.pop(name).float() for name in POOLER if name in left}
    words, positions = (key.tape for key in BEGIN[:2])
    decoder, types_KD = left.pop(DECODER, None), left.pop(TOKEN_TYPES, None)
    if decoder is not None and words in left and not torch.equal(decoder, left[words]):
        raise UserError(
            f"{where}: {DECODER} is not {words}. TAPE ties them, and so does this program: weights with an output "
            "matrix of their own cannot be imported."
        )
    if types_KD is not None and positions in left:
        if types_KD.dim() != 2 or types_KD.shape[1:] != left[positions].shape[1:]:
            raise UserError(
                f"{where}: {TOKEN_TYPES} has shape {tuple(types_KD.shape)}, {positions} "
                f"{tuple(left[positions].shape)}: they cannot be added. The file mixes models or is damaged."
            )
        left[positions] = left[positions].float() + types_KD[0].float()
    return left, beside
