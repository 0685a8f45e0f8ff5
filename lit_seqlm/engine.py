"""One run from config to result: folder, lock, resume, build, train or evaluate, record."""

import logging
import random
import secrets
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from lit_seqlm import recipe
from lit_seqlm.check import check
from lit_seqlm.checkpoint import (
    AtomicCheckpointIO,
    check_vocabulary,
    find_checkpoint,
    origin_of,
    read_checkpoint,
    resumable,
)
from lit_seqlm.config import Resume, accepted, build, config_hash, run_name
from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.folder import duration, earlier, locked, recorded, shown
from lit_seqlm.process import device_name, forget_peak_memory, peak_memory_mb, quieten, tune_memory
from lit_seqlm.results import Result, finite
from lit_seqlm.strategy import launch

log = logging.getLogger(__name__)

PARTS = ("objective", "regularizer", "penalty", "cache", "head", "optimizer", "scheduler")
# What a task may ask of the data.
FROM_DATA = ("unknown_id", "targets", "kind", "covariates", "site", "classes", "measure", "tests",
             "train_separation")  # fmt: skip
INJECTED = {
    "model": {"vocab_size"},
    "data.tokenizer": {"vocabulary"},
    "head": {"hidden_size", "num_outputs"},
    "task": {"model", *FROM_DATA, *PARTS},
    "callbacks.checkpoint": {"config"},
}


def run(cfg: DictConfig) -> float | None:
    """Do what the config says, once: a finished run is returned as it is, an unfinished one goes on.

    Returns:
        The number a sweep minimises: test perplexity, or infinity where training diverged.

    Raises:
        UserError: for what the user can mend.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    quieten()
    tune_memory(recipe.num_kernels(cfg))
    overrides = list(hydra.overrides.task)
    follows = bool(cfg.strategy) and launch.rank() > 0
    if follows:
        launch.take_part()
    source = find_checkpoint(cfg.init_from) if cfg.init_from else None
    origin = read_checkpoint(source) if source else None
    recipe.inherit(cfg, origin, overrides)
    check(cfg, INJECTED)
    data = build(cfg.data)
    number = recipe.num_processes(cfg, data)
    identity: dict[str, Any] = {
        "config_hash": config_hash(cfg),
        "text": data.fingerprint() if recipe.uses_splits(cfg) else "",
        "origin": origin_of(origin, source) if origin and source else None,
    }
    if follows:
        _follow(cfg, origin, data, folder)
        return None
    recipe.warn_of_unused(cfg, overrides, PARTS)
    with locked(folder):
        found = earlier(folder, cfg.resume.value, identity)
        if found and recipe.stands(cfg, found.get("card", {})) and _finished(found, folder):
            return _headline(found)
        cfg.name = run_name(cfg.name, overrides)
        cfg.run_id = found["run_id"] if found else secrets.token_hex(4)
        result = _record(cfg, overrides, found, identity)
        log.info("%s, seed %d, in %s", cfg.name, cfg.seed, shown(folder))
        with recorded(result, folder), launch.processes(number, folder):
            _execute(cfg, origin, data, folder, result)
        record = asdict(result)
        log.info("%s in %s, in %s", _tell(record), duration(result.wall_seconds), shown(folder))
        return _headline(record)


def _record(
    cfg: DictConfig,
    overrides: list[str],
    found: dict[str, Any] | None,
    identity: dict[str, Any],
) -> Result:
    """A run's record as it begins, or goes on from the one that was found."""
    return Result(
        name=cfg.name,
        seed=cfg.seed,
        run_id=cfg.run_id,
        overrides=overrides,
        scale=recipe.scale(cfg, overrides),
        init_from=cfg.init_from,
        attempts=found["attempts"] + 1 if found else 1,
        wall_seconds=found["wall_seconds"] if found else 0.0,
        **identity,
    ).stamp()


@dataclass
class Assembled:
    """What a config names, built and connected, with nothing run yet."""

    task: Any
    trainer: lightning.Trainer
    data: Any


def assemble(cfg: DictConfig, data: Any, origin: dict[str, Any] | None = None) -> Assembled:
    """Seed, set `data` up, then build trainer, model and task; `origin` is the checkpoint that ``init_from`` names."""
    random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # 1.5 % of a step; all is written
    trainer = _trainer(cfg)
    if origin and recipe.inherits(cfg):
        recipe.take_ids(data.tokenizer, origin["tokenizer"], f"init_from={cfg.init_from}")
    if recipe.uses_splits(cfg):
        data.prepare_data()
        data.setup()
    elif origin and "classes" in origin and hasattr(data, "site"):
        data.classes = tuple(origin["classes"])
    task = build(cfg.task, **_parts(cfg, data))
    if origin:
        task.begin(origin, data.tokenizer, f"init_from={cfg.init_from}")
    if trainer.global_rank > 0:  # the same weights, but dropout of its own
        torch.manual_seed(cfg.seed + 1_000_003 * trainer.global_rank)
    return Assembled(task, trainer, data)


def _parts(cfg: DictConfig, data: Any) -> dict[str, Any]:
    """What the task is made of: what its constructor asks for."""
    wanted = accepted(cfg.task)
    parts: dict[str, Any] = {"model": build(cfg.model, vocab_size=len(data.tokenizer))}
    for name in [name for name in FROM_DATA if name in wanted]:
        if not hasattr(data, name):
            asks = str(cfg.task._target_).rpartition(".")[2]
            raise UserError(f"{asks} asks for {name}: these data have none. {recipe.labels(data)}")
        parts[name] = getattr(data, name)
    for group in [group for group in PARTS if group in wanted]:
        # A head's sizes are known to the task alone.
        parts[group] = partial(build, cfg.head) if group == "head" else build(cfg[group])
    return parts


def _execute(
    cfg: DictConfig, origin: dict[str, Any] | None, data: Any, folder: Path, result: Result
) -> None:
    """Build everything, run the task, fill in the result."""
    forget_peak_memory()
    whole = assemble(cfg, data, origin)
    task, device = whole.task, whole.trainer.strategy.root_device.type
    size = whole.trainer.world_size
    result.num_parameters = sum(parameter.numel() for parameter in task.model.parameters())
    result.device = f"{size} x " * (size > 1) + device_name(device)
    last = _last(cfg, whole.data, folder)
    if last:
        log.info("continuing from %s", Path(last).name)
    result.headline = task.headline
    result.metrics = finite(task.run(whole.trainer, whole.data, last))
    result.card = task.card
    if task.num_tokens:
        result.tokens_per_second = round(task.num_tokens / task.clock.seconds, 1)
    result.peak_memory_mb = round(peak_memory_mb(device), 1)


def _follow(cfg: DictConfig, origin: dict[str, Any] | None, data: Any, folder: Path) -> None:
    """Compute with the process that is the run, and leave all else to it."""
    whole = assemble(cfg, data, origin)
    whole.task.run(whole.trainer, whole.data, _last(cfg, whole.data, folder))
    launch.leave()


def _last(cfg: DictConfig, data: Any, folder: Path) -> str | None:
    """The checkpoint to continue from, if there is one and it reads the data as this run does."""
    last = None if cfg.resume == Resume.never else resumable(folder / "checkpoints")
    if last is None:
        return None
    what = f"{folder}: the checkpoint to continue from"
    check_vocabulary(read_checkpoint(last), data.tokenizer, what)
    return str(last)


def _trainer(cfg: DictConfig) -> lightning.Trainer:
    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    callbacks = [
        build(node, config=plain) if "config" in accepted(node) else build(node)
        for node in cfg.callbacks.values()
    ]
    parts: dict[str, Any] = {"logger": [], "plugins": [AtomicCheckpointIO()]}
    if cfg.strategy:  # the data share an epoch themselves
        parts |= {"strategy": build(cfg.strategy), "use_distributed_sampler": False}
    if not cfg.strategy or launch.rank() == 0:
        parts["logger"] = [build(node) for node in (cfg.logger or {}).values()]
    for logger in parts["logger"]:
        logger.log_hyperparams(plain)
    if (cfg.trainer.get("gradient_clip_val") or 0) < 0:  # Lightning would not clip at all
        raise UserError(
            f"trainer.gradient_clip_val={cfg.trainer.gradient_clip_val}: a norm is at least 0"
        )
    try:
        return build(cfg.trainer, callbacks=callbacks, **parts)
    except (MisconfigurationException, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        missing = any(word in reason for word in ("ccelerator", "backend", "device"))
        hint = " This machine can run trainer=cpu." if missing else ""
        raise UserError(f"trainer: {reason}{hint}") from None


def _finished(found: dict[str, Any], folder: Path) -> bool:
    """Whether there is nothing left to do; says so."""
    if found["status"] == "diverged":
        raise DivergedError(
            f"{shown(folder)} is diverged already: {found['error']} resume=never runs it again."
        )
    if found["status"] == "done":
        log.info("%s is done already: %s. resume=never runs it again.", shown(folder), _tell(found))
    return found["status"] == "done"


def _headline(record: dict[str, Any]) -> float | None:
    return record["metrics"].get(record.get("headline", "test/ppl"), float("inf"))


def _tell(record: dict[str, Any]) -> str:
    value, name = _headline(record), record.get("headline", "test/ppl")
    if value is None or value == float("inf"):
        return "no test result"
    if name == "test/ppl":
        return f"test perplexity {value:.2f}"
    if name == "rows/not_ok":
        return f"{value:.0f} row{'s' * (value != 1)} not ok"
    return f"{name} {value:.4g}"
