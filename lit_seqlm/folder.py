"""A run's folder: one process at a time, what an earlier one left, and a record that stays true."""

import fcntl
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.results import Result, read_result

log = logging.getLogger(__name__)


CHANGED = {
    "config_hash": "a run of another config: the experiment has changed since",
    "text": "a run on a text that has changed since",
    "origin": "a run from weights that have changed since",
}


def earlier(folder: Path, resume: str, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What the folder records of this same run, if the user wants to go on with it.

    Args:
        identity: what must be the same, by its name in the record.
    """
    record = read_result(folder)
    if record is None:
        return None
    if resume == "never":
        aside = next(
            p
            for n in range(1, 1000)
            if not (p := folder.with_name(f"{folder.name}.old{n}")).exists()
        )
        aside.mkdir()
        for item in folder.iterdir():
            if item.name not in (".lock", ".hydra", "run.log"):
                item.rename(aside / item.name)
        log.info("resume=never: the earlier run is kept in %s", shown(aside))
        return None
    for key, what in CHANGED.items():
        if record.get(key) != identity[key]:
            raise UserError(
                f"{shown(folder)} holds {what}. Give it another name=, or resume=never to keep that run aside and "
                "start anew."
            )
    return record


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process per run folder; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}). Choose another place: paths.output_dir=FOLDER."
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another process is at work in {shown(folder)}. Wait for it, or use another seed= or name=."
            ) from None
        yield


@contextmanager
def recorded(result: Result, folder: Path) -> Iterator[None]:
    """Keep result.json true whatever happens."""
    started, earlier = time.monotonic(), result.wall_seconds
    exit_code = 1
    try:
        result.write(folder)
        yield
        result.status, exit_code = "done", 0
    except DivergedError as error:
        result.status, result.error = "diverged", str(error)
        raise
    except (SIGTERMException, KeyboardInterrupt, SystemExit) as stop:
        again = "without resume=never, " if "resume=never" in result.overrides else ""
        result.status, result.error = (
            "interrupted",
            f"stopped from outside; {again}the same command continues",
        )
        log.warning("%s: %s.", shown(folder), result.error)
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning made a SystemExit of Ctrl-C
            raise KeyboardInterrupt from None
        raise
    except OSError as error:
        result.status, result.error = "failed", str(error)
        raise UserError(
            f"{error.strerror or error}: {error.filename or folder}. What was saved before is kept."
        ) from error
    except Exception as error:
        result.status, result.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        result.wall_seconds = round(earlier + time.monotonic() - started, 2)
        _write_quietly(result, folder)
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(exit_code)


def _write_quietly(result: Result, folder: Path) -> None:
    try:
        result.write(folder)
    except OSError as error:
        log.error("cannot write result.json in %s (%s)", shown(folder), error.strerror)


def shown(folder: Path) -> str:
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
