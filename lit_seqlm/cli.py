"""From the command line to the engine and back: one message for the user's mistakes, the traceback for ours."""

import errno
import logging
import math
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lit_seqlm.config import CONF
from lit_seqlm.console import log_files
from lit_seqlm.errors import DivergedError, UserError, did_you_mean
from lit_seqlm.summary import show

FULL = (errno.ENOSPC, errno.EDQUOT)
_folders: list[Path] = []  # of the jobs of a sweep
_unfinished_jobs: dict[str, list[str]] = {}  # how they ended: which they were


def job(cfg: DictConfig) -> float | None:
    """One run. Alone, a user's mistake ends the program with status 2; in a sweep, the other jobs go on."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lit_seqlm.engine import run  # torch is imported only now: --help stays fast

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        _folders.append(Path(HydraConfig.get().runtime.output_dir))
    try:
        return run(cfg)
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        _note(error)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(2)
        ended = "diverged" if isinstance(error, DivergedError) else "failed"
        overrides = " ".join(HydraConfig.get().overrides.task)
        _unfinished_jobs.setdefault(ended, []).append(f"{cfg.name} ({overrides})")
        return math.inf


def guard(main: Callable[[], Any]) -> None:
    """Run a Hydra main; what cannot be composed is told in one or two lines, with status 2."""
    _multirun_first()
    try:
        main()
    except (HydraException, OmegaConfBaseException, UserError) as error:
        sys.stderr.write(f"{explain(error)}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # the run has said what to do
    except OSError as error:  # Hydra makes the run's folder before the engine is asked
        if error.filename is None and error.errno not in FULL:
            raise
        where = error.filename or "the run's folder"
        sys.stderr.write(
            f"{where}: {error.strerror}. Make room, or choose another place: paths.output_dir=FOLDER.\n"
        )
        sys.exit(2)
    if len(_folders) > 1:
        show(_folders)
    for ended, jobs in _unfinished_jobs.items():
        sys.stderr.write(f"{len(jobs)} job(s) of the sweep {ended}: {'; '.join(jobs)}\n")
    if "failed" in _unfinished_jobs:
        sys.exit(2)


def _multirun_first() -> None:
    """Hydra takes -m among the overrides for the end of its own options."""
    for flag in ("-m", "--multirun"):
        if flag in sys.argv[2:]:
            sys.argv.remove(flag)
            sys.argv.insert(1, flag)


def _note(error: UserError) -> None:
    """Into run.log too, which otherwise ends in the middle."""
    record = logging.makeLogRecord({"msg": str(error), "levelname": "ERROR"})
    for handler in log_files():
        handler.emit(record)


def explain(error: Exception) -> str:
    """Hydra's message in one or two lines, with the accepted names where a key is unknown."""
    text = str(error)
    if unread := re.search(r"^(?:Lexer|mismatched|extraneous|no viable|token).*", text):
        word = next((word for word in sys.argv[1:] if word in text), unread.group())
        return (
            f"{word}: cannot be read. A value with signs in it needs quotes inside quotes: 'KEY=\"VALUE\"'; "
            "~ is not expanded here."
        )
    option = re.search(r"Could not find '([^/]+)/([^']+)'", text)
    if option:
        group, name = option.groups()
        options = [
            path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_")
        ]
        if options:
            return f"{group}={name}: there is no such option. {did_you_mean(name, options)}"
    meant = re.search(r"Did you mean to override (\S+)\?", text)
    if meant:
        group = meant.group(1).partition("@")[0]
        return f"{group} belongs to another group here. Say {meant.group(1)}=OPTION."
    group = re.search(r"Could not override '([^'@]+)'\. No match", text)
    if group and (CONF / group.group(1)).is_dir():
        return f"{group.group(1)}: nothing that was chosen has one. Choose its owner first, such as cache=unbounded."
    unlike = re.search(r"Error merging override (\S+?)=", text)
    if unlike and "Cannot merge" in f"{text} {error.__cause__}":
        return f"{unlike.group(1)} holds keys of its own. Say {unlike.group(1)}.KEY=VALUE."
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        return f"{key.group(1)}: there is no such key. {_accepted_near(key.group(1))}"
    if error.__cause__ and str(error.__cause__) not in text:
        text = f"{text}: {str(error.__cause__).splitlines()[0]}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _accepted_near(key: str) -> str:
    """The names accepted where `key` was meant to go, under the groups that this command line chooses."""
    parent, _, last = key.lstrip("+~").rpartition(".")
    config = _composed()
    node = OmegaConf.select(config, parent) if parent else config
    while parent and not isinstance(node, DictConfig):
        parent, _, last = parent.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
    names = [str(name) for name in node if not str(name).startswith("_")]
    if names:
        return did_you_mean(last, names)
    elsewhere = [
        p.stem for p in sorted((CONF / parent).glob("*.yaml")) if last in (OmegaConf.load(p) or {})
    ]
    hint = (
        f" {last!r} belongs to {' or '.join(f'{parent}={name}' for name in elsewhere)}."
        if elsewhere
        else ""
    )
    return f"What is chosen for {parent} has no options.{hint}"


def _composed() -> DictConfig:
    """The config with the groups of this command line and none of its values."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    chosen = [o for o in sys.argv[1:] if o.partition("=")[0] in groups and "," not in o]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=chosen)
