"""What a command line makes of a recipe: what it takes from a trained run, and whether it is still the paper's."""

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from lit_seqlm.config import CONF, NOT_IDENTITY, Scale
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

READING = ("tokenizer", "eval_seq_len", "eval_stride")  # how a model reads any text
# What may be said on top of a paper's recipe: where it runs, and what the papers' rows vary.
PAPERS_TOO = (
    *NOT_IDENTITY,
    "init_from=",
    "task",
    "cache",
    "search@",
    "regularizer",
    "penalty",
    "callbacks.",
)


def inherits(cfg: DictConfig) -> tuple[str, ...]:
    """Config groups that the task takes from the run that init_from names."""
    return get_class(cfg.task._target_).inherits  # type: ignore[attr-defined]


def inherit(cfg: DictConfig, origin: dict[str, Any] | None, overrides: list[str]) -> None:
    """For tasks on a trained model: take its model, objective and data unless the command line says otherwise.

    Raises:
        UserError: if the task or the recipe needs trained weights and there are none.
    """
    groups, task = inherits(cfg), get_class(cfg.task._target_)
    if origin is None:
        if cfg.needs_weights or (groups and task.needs_origin):
            what = (
                cfg.name
                if cfg.needs_weights
                else f"task={HydraConfig.get().runtime.choices['task']}"
            )
            raise UserError(f"{what} needs trained weights. Say init_from=RUN_FOLDER.")
        return
    keys = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    theirs = origin["config"]
    with open_dict(cfg):
        for group in groups:
            if group in keys or (group != "model" and _chosen(group)):
                continue
            cfg[group] = OmegaConf.create(theirs[group])
            for key, value in keys.items():
                if key.startswith(f"{group}."):
                    OmegaConf.update(cfg, key, OmegaConf.create(f"value: {value}").value)
        if groups:
            _read_alike(cfg, theirs, keys)
        if groups and "scale" not in keys:
            cfg.scale = Scale(theirs["scale"])


def _chosen(group: str) -> bool:
    """Whether an experiment chose the option of a group itself."""
    usual = next(
        entry[group] for entry in OmegaConf.load(CONF / "config.yaml").defaults if group in entry
    )
    return HydraConfig.get().runtime.choices[group] != usual


def _read_alike(cfg: DictConfig, theirs: dict[str, Any], keys: dict[str, str]) -> None:
    """Other text, read as the model's own; from where this machine keeps it."""
    for key in READING:
        both = key in cfg.data and key in theirs["data"]
        if both and not any(said.startswith((f"data.{key}", f"{key}@")) for said in keys):
            cfg.data[key] = theirs["data"][key]
    path, source = "data.source", cfg.data.get("source")
    while source is not None:  # a restyled text is a source around a source
        if "data_dir" in source and f"{path}.data_dir" not in keys:
            source.data_dir = cfg.paths.data_dir
        path, source = f"{path}.source", source.get("source")


def scale(cfg: DictConfig, overrides: list[str]) -> str:
    """What the record says: a paper's recipe with other values is the paper's only if the user says so."""
    other = [o for o in overrides if not o.lstrip("+~").startswith(PAPERS_TOO)]
    said = any(o.startswith("scale=") for o in overrides)
    if cfg.scale == Scale.paper and other and not said:
        log.warning("%s: recorded as scale=reduced, not the paper's", ", ".join(other))
        return Scale.reduced.value
    return cfg.scale.value
