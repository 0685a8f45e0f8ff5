"""Checkpoints: tensors and plain values only, written whole or not at all."""

import logging
import os
import pickle
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pooch
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from lit_seqlm.errors import UserError
from lit_seqlm.strategy.sharded import set_weights

log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a full disk or a kill leaves the older file as it was."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == LAST and target.exists():
                target.replace(target.with_name(PREVIOUS))
            partial.replace(target)
        except (OSError, RuntimeError) as error:
            # A full disk reaches us as a RuntimeError of torch's zip writer that does not name it.
            full = shutil.disk_usage(target.parent).free < 2**20
            reason = "the disk is full" if full else str(error).splitlines()[0]
            raise UserError(
                f"cannot write {target.name} in {target.parent}: {reason}. The one before it is kept; "
                "make room and give the same command again to continue."
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint with `weights_only=True`.

    Raises:
        UserError: if it is missing, cut short, or holds more than tensors and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"no checkpoint at {path}. Give a run's folder or one of its .ckpt files."
        ) from None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        unpickled = isinstance(error, pickle.UnpicklingError)  # torch's text for it misleads
        reason = "no tensors" if unpickled else (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a readable checkpoint ({reason}).") from None
    if (
        not isinstance(checkpoint, dict)
        or "state_dict" not in checkpoint
        or "config" not in checkpoint
    ):
        raise UserError(
            f"{path} is not a checkpoint of this program: it has no weights or no config."
        )
    return checkpoint


def find_checkpoint(origin: str, said: str = "init_from=") -> Path:
    """The weights that `init_from=` names: a .ckpt file, or a run folder with its best checkpoint.

    Args:
        said: how the user named it, for the message.
    """
    path = Path(origin)
    if path.is_dir():
        path = path / (BEST if (path / BEST).exists() else f"checkpoints/{BEST}")
    if path.name in (LAST, PREVIOUS):
        log.warning(
            "%s is where training would go on, not its end; the run's folder has its best weights",
            path,
        )
    if not path.exists():
        outputs = Path(os.environ.get("LIT_SEQLM_OUTPUTS", "outputs"))
        runs = sorted(str(p.parent.parent) for p in outputs.glob(f"*/*/checkpoints/{BEST}"))
        more = f" and {len(runs) - 8} more" if len(runs) > 8 else ""
        known = (
            f"There is: {', '.join(runs[:8])}{more}."
            if runs
            else f"There are no finished runs under {outputs} yet."
        )
        raise UserError(f"{said}{origin}: no checkpoint there. {_maker(path)}{known}")
    return path


def _maker(path: Path) -> str:
    """How to make a missing run, where its folder is named after a recipe."""
    recipes = Path(__file__).parents[1] / "conf/experiment"
    for part in path.parts[-2:]:
        if (recipes / f"{part}.yaml").is_file():
            return f"python run.py experiment={part} makes it; init_from=null begins without. "
    return ""


def resumable(folder: Path) -> Path | None:
    """The newest readable training checkpoint of a run; a damaged one is reported and the one before it taken."""
    for leftover in folder.glob(".*.ckpt.*"):  # of a process killed while it wrote
        leftover.unlink()
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            read_checkpoint(path)
        except UserError as error:
            log.warning("%s Falling back to the checkpoint before it.", error)
            continue
        return path
    return None


def load_weights(
    model: nn.Module, checkpoint: dict[str, Any], tokenizer: Any, what: str, only: str = ""
) -> None:
    """Strictly load the weights of another run, whose vocabulary must be this one's.

    Args:
        what: begins the message if they do not fit, as the user named them.
        only: the beginning of the names that are taken; all others stay as they are, on both sides.

    Raises:
        UserError: if the vocabulary or a tensor's name or shape differs.
    """
    check_vocabulary(checkpoint, tokenizer, what)
    weights = {k: v for k, v in model_weights(checkpoint).items() if k.startswith(only)}
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(only)}
    wrong = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unexpected or wrong:
        parts = [
            f"{what} {names[:3]}"
            for what, names in (
                ("lacks", missing),
                ("has no place for", unexpected),
                ("has other shapes for", wrong),
            )
            if names
        ]
        raise UserError(
            f"{what}: the weights do not fit this model; the checkpoint {'; '.join(parts)}. "
            "Give the model options of that run (its .hydra/config.yaml has them)."
        )
    set_weights(model, weights, strict=not only)


def check_vocabulary(checkpoint: dict[str, Any], tokenizer: Any, what: str) -> None:
    """Raise UserError unless token ids mean the same in a checkpoint and in a run."""
    theirs = checkpoint["tokenizer"].get("vocabulary")
    if theirs is not None and theirs != tokenizer.state_dict().get("vocabulary"):
        raise UserError(
            f"{what}: its vocabulary of {len(theirs):,} tokens is not this run's, of {len(tokenizer):,}. "
            "Use the data it was trained on, or task=evaluate, which keeps the checkpoint's vocabulary."
        )


def origin_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """Name, seed, epoch and selection value of the run that a checkpoint comes from, and the file's digest."""
    config = checkpoint["config"]
    monitor = config.get("monitor", "val/nll")
    found = {
        "name": config["name"],
        "seed": config["seed"],
        "epoch": checkpoint.get("epoch"),
        monitor: checkpoint.get(monitor),
        "sha256": pooch.file_hash(str(path)),
    }
    return {key: value for key, value in found.items() if value is not None}


def model_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    whole = checkpoint["state_dict"].items()
    return {k.removeprefix("model."): v for k, v in whole if k.startswith("model.")}


def random_state() -> list[torch.Tensor]:
    """The generators that dropout draws from: the CPU's, then every CUDA device's."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_random_state(state: list[torch.Tensor]) -> None:
    """Put them back; on a machine with another number of devices, the CPU's alone."""
    torch.set_rng_state(state[0])
    if len(state) - 1 == torch.cuda.device_count() and len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


@dataclass
class Loaded:
    """A trained model and what it needs to be used; `targets` or `classes` are what it predicts, where it does."""

    model: nn.Module
    tokenizer: Any
    config: dict[str, Any]
    targets: list[Any]
    classes: tuple[str, ...] = ()


def load(path: str | Path) -> Loaded:
    """Model (in eval mode) and tokenizer of a run folder or checkpoint file; a fine-tuned one with its head.

    Raises:
        UserError: if there is no readable checkpoint.
    """
    from lit_seqlm.config import build, refuse_foreign
    from lit_seqlm.model.property import PropertyModel
    from lit_seqlm.model.site_model import SiteModel

    checkpoint = read_checkpoint(find_checkpoint(str(path), said=""))
    config = checkpoint["config"]
    for group in ("data", "model", "head"):
        refuse_foreign(config.get(group), str(path))
    tokenizer = build(config["data"]["tokenizer"])
    tokenizer.load_state_dict(checkpoint["tokenizer"])
    model, data = build(config["model"], vocab_size=len(tokenizer)), None
    if config.get("head"):
        data, head = build(config["data"]), partial(build, config["head"])  # no split is read
        if hasattr(data, "site"):
            data.classes = tuple(checkpoint.get("classes", ()))
            model = SiteModel.on(model, head, data.site, len(data.classes))
        else:
            sizes = len(data.targets), len(data.covariates)
            model = PropertyModel.on(model, head, data.kind, *sizes)
    load_weights(model, checkpoint, tokenizer, str(path))
    targets, classes = getattr(data, "targets", []), getattr(data, "classes", ())
    return Loaded(model.eval(), tokenizer, config, targets, classes)
