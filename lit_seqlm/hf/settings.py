"""config.json: what it says of a model, read as plain values, and how ours is written."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_seqlm.errors import UserError
from lit_seqlm.hf.sizes import Sizes, generative
from lit_seqlm.tokenizer.smiles_vocabulary import digest

SETTINGS = "config.json"
OWN = "lit_seqlm"  # the part of the file that only this program reads
# What our encoder does whatever the settings say; other words there mean another model.
FIXED = {
    "hidden_act": "gelu",
    "feature_map_kernel": "relu",
    "model_type": "molformer",
    "classifier_skip_connection": True,
}
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "feed_forward_size",
    "num_random_features": "num_features",
}
NUMBERS = {
    "layer_norm_eps": "layer_norm_eps",
    "linear_attention_eps": "attention.guard_eps",
    "hidden_dropout_prob": "dropout",
    "embedding_dropout_prob": "embedding_dropout",
    "max_position_embeddings": "max_len",
}
# Options of ours that config.json has no word for.
OURS_ALONE = ("attention.guard", "attention.omega_scale", "attention.omega_policy",
              "feed_forward_dropout", "pad_handling")  # fmt: skip
WORD = re.compile(r"[a-z_]+")


def read_settings(weights: Path) -> dict[str, Any]:
    """The config.json beside a file of weights; empty if there is none.

    Raises:
        UserError: if it is not readable, or tells of another model.
    """
    path = weights.with_name(SETTINGS)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not readable JSON ({error}).") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings: a JSON object is expected.")
    made_for = [str(name) for name in found.get("architectures") or []]
    if found.get("is_decoder") or any("CausalLM" in name for name in made_for):
        raise generative(str(path))
    for key, known in FIXED.items():
        if found.get(key, known) != known:
            raise UserError(
                f"{path} says {key}={found[key]}; only {key}={known} can be imported, as the published "
                "MoLFormer has it."
            )
    return found


def hints_in_settings(settings: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of heads and random features, which tensors show only with an omega."""
    known = {ours: settings.get(theirs) for theirs, ours in SIZES.items()}
    return {
        name: value
        for name in ("num_heads", "num_features")
        if isinstance(value := known[name], int)
    }


def check_sizes(settings: Mapping[str, Any], sizes: Sizes, where: Path) -> None:
    """Raise UserError where config.json and the tensors tell of different models."""
    for theirs, ours in SIZES.items():
        found = getattr(sizes, ours)
        if settings.get(theirs, found) != found:
            raise UserError(
                f"{where}: {SETTINGS} beside it says {theirs}={settings[theirs]}, its tensors say {found}. "
                "Put the settings that belong to these weights beside them."
            )


def model_options(settings: Mapping[str, Any]) -> dict[str, float | str]:
    """Options of our model that the settings decide: numbers and single words, nothing that could be more.

    Raises:
        UserError: for a value of another kind.
    """
    said = {ours: settings[theirs] for theirs, ours in NUMBERS.items() if theirs in settings}
    own = own_part(settings).get("model", {})
    said |= {name: own[name] for name in OURS_ALONE if name in own}
    for name, value in said.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_word = isinstance(value, str) and WORD.fullmatch(value)
        if not (is_word if name in OURS_ALONE and isinstance(value, str) else is_number):
            raise UserError(
                f"{SETTINGS}: {value!r} for {name} is neither a number nor one of its words."
            )
    return said


def own_part(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What this program wrote there; empty in other people's files."""
    found = settings.get(OWN, {})
    return found if isinstance(found, Mapping) else {}


def settings_of(
    model: Mapping[str, Any], sizes: Sizes, num_outputs: int, tokenizer: Mapping[str, Any]
) -> dict[str, Any]:
    """A config.json for weights of ours.

    Args:
        model: config of the run's model.
        num_outputs: of its property head; 0 without one.
        tokenizer: what an import needs to know of it (see `about`).
    """
    kind = "SequenceClassification" if num_outputs else "MaskedLM"
    numbers = {theirs: option(model, ours) for theirs, ours in NUMBERS.items()}
    own = {name: option(model, name) for name in OURS_ALONE}
    return {
        "architectures": [f"MolformerFor{kind}"],
        **FIXED,
        **{theirs: getattr(sizes, ours) for theirs, ours in SIZES.items()},
        **{name: value for name, value in numbers.items() if value is not None},
        "initializer_range": 0.02,
        "deterministic_eval": option(model, "omega_policy") != "redraw_always",
        "classifier_dropout_prob": None,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        **({"num_labels": num_outputs} if num_outputs else {}),
        OWN: {
            **tokenizer,
            "model": {name: value for name, value in own.items() if value is not None},
        },
    }


def about(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Of a tokenizer's state, what its list of tokens does not say: the digest, and whether stereo marks are kept."""
    return {
        "vocabulary_sha256": digest(tokenizer["vocabulary"]),
        "isomeric": bool(tokenizer.get("isomeric", False)),
    }


def option(node: Any, name: str) -> Any:
    """The value of an option in a config or anywhere below it; None where it is not."""
    if not isinstance(node, Mapping):
        return None
    last = name.rpartition(".")[2]
    if last in node:
        return node[last]
    found = (option(value, last) for value in node.values())
    return next((value for value in found if value is not None), None)
