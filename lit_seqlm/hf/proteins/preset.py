"""The config of an imported protein model: the options of its layout, with the sizes of its tensors."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lit_seqlm.config import CONF, Scale, register
from lit_seqlm.hf.proteins.keys import MEGATRON, TAPE
from lit_seqlm.hf.proteins.source import Sizes, Source
from lit_seqlm.hf.settings import option
from lit_seqlm.tokenizer.amino_acid import ENDS, VOCABULARY

PRESETS = {MEGATRON: "proteinlm_200m", TAPE: "tape_bert_base"}
PUBLISHED = {
    MEGATRON: Sizes(128, 1024, 16, 16, 4096, 2176),
    TAPE: Sizes(30, 768, 12, 12, 3072, 8096),
}
READ_WITH = {MEGATRON: "cls", TAPE: "cls_sep"}  # tokenizer.ends
CONVENTIONS = ("norm", "activation", "layer_norm_eps", "dropout", "embedding_dropout")


def config_for(source: Source, seed: int) -> dict[str, Any]:
    """A run's config as checkpoints hold it, as far as loading and fine-tuning read it.

    Args:
        seed: what tensors that the file lacks are drawn from.
    """
    layout, sizes, ends = source.layout, source.sizes, READ_WITH[source.layout]
    num_rows = max(sizes.vocab_size, len(VOCABULARY))
    options = {**asdict(sizes), **source.model, "vocab_multiple": num_rows}
    del options["vocab_size"]  # is the tokenizer's
    config = deepcopy(_usual(layout))
    for name, value in options.items():
        group, _, last = name.rpartition(".")
        (config["model"][group] if group else config["model"])[last] = value
    room = {"row_len": sizes.max_len, "max_len": sizes.max_len - len(ENDS[ends])}
    config["data"] |= room
    config["data"]["tokenizer"]["ends"] = ends
    scale = Scale.paper if sizes == PUBLISHED[layout] else Scale.reduced
    about = {"name": PRESETS[layout], "seed": seed, "scale": scale.value, "monitor": "val/nll"}
    return config | about


@cache
def _usual(layout: str) -> dict[str, Any]:
    """Model, objective and data as the layout's preset has them.

    The data are some that read proteins, for embed; what is trained on is chosen when something is.
    """
    chosen = [f"model={PRESETS[layout]}", "objective=masked_lm", "data=swissprot_sample"]
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = compose("config", overrides=[*chosen, "paths.run_dir=."])
    return {
        group: OmegaConf.to_container(composed[group], resolve=True)
        for group in ("model", "objective", "data")
    }


def conventions_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide an encoder's numbers beside its weights."""
    return {name: option(model, name) for name in CONVENTIONS}
