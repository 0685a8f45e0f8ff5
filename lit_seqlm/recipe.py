"""What a command line makes of a recipe: what it takes from a trained run, and whether it is still the paper's."""

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from lit_seqlm.config import CONF, NOT_IDENTITY, Scale, accepted, refuse_foreign
from lit_seqlm.errors import UserError
from lit_seqlm.strategy import launch
from lit_seqlm.task.training import Training

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
    return _task(cfg).inherits


def num_kernels(cfg: DictConfig) -> int:
    """How many compiled kernels the task's steps share."""
    return _task(cfg).num_kernels


def uses_splits(cfg: DictConfig) -> bool:
    """Whether the task reads the splits of its data, which then have to be there."""
    return _task(cfg).uses_splits


def num_processes(cfg: DictConfig, data: Any) -> int:
    """How many processes train this run's model on this machine.

    Raises:
        UserError: several devices and no way to use them: no strategy, or a task, data or sweep for one device.
    """
    number = launch.num_devices(cfg.trainer.devices, cfg.trainer.accelerator)
    several = f"trainer.devices={cfg.trainer.devices}"
    if number > 1 and not cfg.strategy:
        raise UserError(
            f"{several}: say how they train one model: strategy=ddp, each with all of it, or strategy=fsdp, each "
            "with a share. For several runs at once, experiments/reproduce.py launch --jobs N."
        )
    if not cfg.strategy:
        return 1
    if not issubclass(get_class(cfg.task._target_), Training):
        raise UserError(f"task={_task_name()} runs on one device. Say strategy=single.")
    if not getattr(data, "shares_epochs", False):
        raise UserError(
            f"strategy={HydraConfig.get().runtime.choices['strategy']}: these data are read in order by one process. "
            "Say strategy=single, or choose data of single sequences, such as data=moses."
        )
    if number > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            f"{several}: a sweep runs its jobs in one process. Give each its own command."
        )
    return number


def stands(cfg: DictConfig, card: dict[str, Any]) -> bool:
    """Whether what a finished run of this task made is still there."""
    return _task(cfg).stands(card)


def inherit(cfg: DictConfig, origin: dict[str, Any] | None, overrides: list[str]) -> None:
    """For tasks on a trained model: take its model, objective and data unless the command line says otherwise.

    Raises:
        UserError: if the task or the recipe needs trained weights and there are none.
    """
    groups, task = inherits(cfg), _task(cfg)
    if origin is None:
        if cfg.needs_weights or (groups and task.needs_origin):
            what = cfg.name if cfg.needs_weights else f"task={_task_name()}"
            raise UserError(f"{what} needs trained weights. Say init_from=RUN_FOLDER.")
        return
    keys = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    theirs = origin["config"]
    with open_dict(cfg):
        for group in groups:
            if group in keys or (group != "model" and _chosen(group)):
                continue
            if not theirs.get(group):
                raise UserError(
                    f"init_from={cfg.init_from} has no {group}: task={_task_name()} goes on from a run "
                    f"that was trained with one. Make it with task=finetune {group}=OPTION."
                )
            refuse_foreign(theirs[group], f"init_from={cfg.init_from}")
            cfg[group] = OmegaConf.create(theirs[group])
            for key, value in keys.items():
                if key.startswith(f"{group}."):
                    OmegaConf.update(cfg, key, OmegaConf.create(f"value: {value}").value)
        if groups:
            _read_alike(cfg, theirs, keys)
        if groups and task.needs_origin and "scale" not in keys:
            cfg.scale = Scale(theirs["scale"])


def _task(cfg: DictConfig) -> Any:
    return get_class(cfg.task._target_)


def _task_name() -> str:
    return HydraConfig.get().runtime.choices["task"]


def _chosen(group: str) -> bool:
    """Whether an experiment chose the option of a group itself."""
    usual = next(
        entry[group] for entry in OmegaConf.load(CONF / "config.yaml").defaults if group in entry
    )
    return HydraConfig.get().runtime.choices[group] != usual


def warn_of_unused(cfg: DictConfig, overrides: list[str], groups: tuple[str, ...]) -> None:
    """Name what the command line chose and the task does not ask for, which changes nothing."""
    said, wanted = {override.partition("=")[0] for override in overrides}, accepted(cfg.task)
    for group in groups:
        if group in said and group not in wanted and _chosen(group):
            choice = HydraConfig.get().runtime.choices[group]
            told = group, choice, _task_name(), group
            log.warning("%s=%s does nothing: task=%s asks for no %s", *told)


def _read_alike(cfg: DictConfig, theirs: dict[str, Any], keys: dict[str, str]) -> None:
    """Other text, read as the model's own; from where this machine keeps it."""
    for key in READING:
        whole = any(said == f"data.{key}" or said.startswith(f"{key}@") for said in keys)
        if whole or key not in cfg.data or key not in theirs["data"]:
            continue
        refuse_foreign(theirs["data"][key], f"init_from={cfg.init_from}")
        if any(said.startswith(f"data.{key}.") for said in keys):
            _take_unsaid(cfg.data[key], theirs["data"][key], f"data.{key}", keys)
        else:
            cfg.data[key] = theirs["data"][key]
    path, source = "data.source", cfg.data.get("source")
    while source is not None:  # a restyled text is a source around a source
        if "data_dir" in source and f"{path}.data_dir" not in keys:
            source.data_dir = cfg.paths.data_dir
        path, source = f"{path}.source", source.get("source")


def _take_unsaid(own: DictConfig, theirs: Any, path: str, keys: dict[str, str]) -> None:
    """Of a tokenizer that the command line changes in part: the rest of what `take_ids` leaves to the config."""
    if not theirs or theirs.get("_target_") != own.get("_target_"):
        return
    tokenizer = get_class(own._target_)
    for key in (*getattr(tokenizer, "learnt", ()), *getattr(tokenizer, "policies", ())):
        if key in theirs and f"{path}.{key}" not in keys:
            own[key] = theirs[key]


def take_ids(tokenizer: Any, state: dict[str, Any], what: str) -> None:
    """Give tokens the ids that a trained run knows them by. What a policy keeps or refuses is for the config to say.

    Args:
        state: of that run's tokenizer.
        what: begins the message, as the user named the run.

    Raises:
        UserError: the weights know other tokens, or the config asks for something that they have not learnt.
    """
    own = tokenizer.state_dict()
    for key in getattr(tokenizer, "learnt", ()):
        if state.get(key) != own[key]:
            option, theirs = f"data.tokenizer.{key}=", state.get(key)
            raise UserError(
                f"{what}: its tokens are of another kind than these data's. Choose data of that kind."
                if theirs is None
                else f"{option}{own[key]}: {what} was trained with {theirs}. Say {option}{theirs}."
            )
    policies = {key: own[key] for key in getattr(tokenizer, "policies", ())}
    tokenizer.load_state_dict(state | policies)


def labels(data: Any) -> str:
    """Which tasks are for the labels of these data."""
    if hasattr(data, "site"):
        what = "Their labels are classes of residues, pairs or chains: say task=label_sites to train on them"
        return f"{what}, and task=annotate to predict with a run of that."
    if hasattr(data, "targets"):
        what = "Their labels are properties: say task=finetune or task=probe to train on them"
        return f"{what}, and task=predict to predict with a run of that."
    return "Choose labelled ones, such as data=qm8 or data=secondary_structure."


def scale(cfg: DictConfig, overrides: list[str]) -> str:
    """What the record says: a paper's recipe with other values is the paper's only if the user says so."""
    other = [o for o in overrides if not o.lstrip("+~").startswith(PAPERS_TOO)]
    said = any(o.startswith("scale=") for o in overrides)
    if cfg.scale == Scale.paper and other and not said:
        log.warning("%s: recorded as scale=reduced, not the paper's", ", ".join(other))
        return Scale.reduced.value
    return cfg.scale.value
