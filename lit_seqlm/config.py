"""The schema of a run, the resolvers, and `build`: the only place that instantiates a config."""

import hashlib
import importlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from lit_seqlm.errors import UserError

CONF = Path(__file__).parents[1] / "conf"
# Overrides that cannot change a run's numbers, so they do not name its folder.
NOT_IDENTITY = ("experiment=", "seed=", "name=", "logger", "paths", "hydra", "resume", "tags", "scale=", "trainer=",
                "trainer.devices", "trainer.accelerator", "trainer.enable_", "callbacks.progress",
                "callbacks.checkpoint.every", "task.every_seconds")  # fmt: skip
# Sections of the config that decide the numbers, and keys in them that only say where things are.
NUMBERS = ("seed", "data", "model", "objective", "regularizer", "penalty", "cache", "task", "optimizer",
           "scheduler", "trainer", "callbacks")  # fmt: skip
IF_ANY = ("head", "strategy")  # sections that most runs do without
PLACES = {"data_dir", "cache_dir", "folder", "default_root_dir", "devices", "enable_progress_bar", "accelerator",
          "progress", "every_seconds"}  # fmt: skip


class Scale(Enum):
    """Whether the numbers are at the paper's scale."""

    paper = "paper"
    reduced = "reduced"


class Resume(Enum):
    """auto: return a finished run, continue an unfinished one; never: keep it aside and start anew."""

    auto = "auto"
    never = "never"


@dataclass
class RunConfig:
    """Top-level keys of a run. The groups validate themselves by the signature of what they point to."""

    data: Any = MISSING
    model: Any = MISSING
    objective: Any = MISSING
    regularizer: Any = MISSING
    penalty: Any = MISSING
    cache: Any = MISSING
    head: Any = None
    task: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = None
    trainer: Any = MISSING
    strategy: Any = None
    callbacks: Any = None
    logger: Any = None
    paths: Any = MISSING
    name: str = MISSING
    seed: int = 1
    scale: Scale = Scale.reduced
    monitor: str = "val/nll"
    init_from: str | None = None
    needs_weights: bool = False
    run_id: str = ""
    resume: Resume = Resume.auto
    tags: list[str] = field(default_factory=list)


def register() -> None:
    """Make the schema and the resolvers known to Hydra; harmless when repeated."""
    ConfigStore.instance().store(name="schema", node=RunConfig)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("short_hash", short_hash, replace=True)
    OmegaConf.register_new_resolver("wandb_offline", wandb_offline, replace=True)


def run_folder(name: str, seed: int, overrides: Any) -> str:
    """A run's folder: name, seed, and a hash of the overrides that can change its numbers."""
    given = [str(override).lstrip("+~") for override in overrides]
    kept = sorted(override for override in given if not override.startswith(NOT_IDENTITY))
    parts = [f"seed_{seed}", *[short_hash("|".join(kept))] * bool(kept)]
    return f"{run_name(name, given)}/" + "-".join(parts)


def run_name(name: str, overrides: Any) -> str:
    """A run's name; what another task makes of a run's weights is named after that run."""
    given = dict(str(override).lstrip("+~").partition("=")[::2] for override in overrides)
    if "init_from" not in given or "task" not in given or given.keys() & {"name", "experiment"}:
        return name
    parts = [
        part
        for part in given["init_from"].rstrip("/").split("/")
        if part != "checkpoints" and not part.endswith(".ckpt")
    ]
    return f"{parts[-2] if len(parts) > 1 else name}_{given['task']}"


def short_hash(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def wandb_offline() -> bool:
    """Whether W&B has no key to log in with."""
    netrc = os.path.expanduser("~/.netrc")
    return "WANDB_API_KEY" not in os.environ and not os.path.exists(netrc)


def build(node: Any, **parts: Any) -> Any:
    """Instantiate a config node, completed by what only the program knows (vocabulary size, parameters, ...)."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        if not parts:
            return instantiate(node, _convert_="all")
        make = instantiate(node, _convert_="all", _partial_=True)
        return make(**parts)  # parts never pass through the config
    except (InstantiationException, ValueError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, ValueError) or "negative dimension" in str(
            cause
        ):  # the constructor refuses a value
            raise UserError(f"{str(node['_target_']).rpartition('.')[2]}: {cause}") from error
        raise


def refuse_foreign(node: Any, where: str) -> None:
    """Raise UserError where a config that came in a file names anything but classes of this program.

    What is built from it would otherwise be whatever the file's author wished to run.
    """
    inner = list(node.values()) if isinstance(node, Mapping) else []
    for value in node if isinstance(node, list | tuple) else inner:
        refuse_foreign(value, where)
    if isinstance(node, Mapping) and "_target_" in node and not _is_own(str(node["_target_"])):
        raise UserError(
            f"{where}: its config names {node['_target_']}, which is no class of this program, so it was refused and "
            "nothing of it was run."
        )


def _is_own(name: str) -> bool:
    """Whether a dotted name is that of a class where this program defines it; imports nothing else."""
    module, _, last = name.rpartition(".")
    if not module.startswith("lit_seqlm."):
        return False
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError:
        return False
    return inspect.isclass(found) and found.__module__ == module


def accepted(node: Any) -> set[str]:
    """Names of the parameters of a node's target."""
    return set(inspect.signature(target(node)).parameters)


def config_hash(cfg: DictConfig) -> str:
    """Of all that decides a run's numbers, but for the text and the weights that it starts from."""
    return short_hash(repr(sorted(numbers(cfg).items())))


def numbers(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that decides the numbers, without places, as a flat dict of dotted keys."""
    flat: dict[str, Any] = {}

    def visit(value: Any, path: str) -> None:
        if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
            value = dict(enumerate(value))  # parts, which hold places too
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in PLACES:
                    visit(inner, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = value

    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    there = [section for section in IF_ANY if plain.get(section)]
    visit({section: plain.get(section) for section in (*NUMBERS, *there)}, "")
    if plain.get("strategy"):  # a step's batch is that of all devices
        flat["trainer.devices"] = plain["trainer"]["devices"]
    return flat


def target(node: Any) -> Any:
    """The class or function that a node points to; UserError if there is none."""
    from hydra.utils import get_object

    try:
        return get_object(node["_target_"])
    except Exception as error:
        raise UserError(f"nothing to instantiate at {node['_target_']}: {error}") from None
