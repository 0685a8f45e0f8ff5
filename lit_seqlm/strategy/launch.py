"""The processes that train one model: started with the run, ended with it, and heard if one fails.

Each device has a process, and each process gives the same command. Process 0 is the run: it locks the folder, keeps
the record, writes and tells; the others compute with it. Where a launcher has started them all (torchrun, SLURM), there
is nothing to start here.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

PARENT = "LIT_SEQLM_PARENT"  # in the environment of the processes that are started here
GRACE = 20.0  # seconds for processes to end by themselves after one of them has failed
ENDING = 120.0  # seconds for the others to end after process 0
QUIET = ("hydra.output_subdir=null", f"hydra.job_logging.handlers.file.filename={os.devnull}")


def rank() -> int:
    """Which process of the run this is."""
    named = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return int(next((value for value in named if value), "0"))


def num_devices(devices: Any, accelerator: str) -> int:
    """How many processes ``trainer.devices`` asks for on this machine."""
    if isinstance(devices, int) and devices > 0:
        return devices
    if isinstance(devices, int | str):
        return 1 if accelerator == "cpu" else max(1, torch.cuda.device_count())
    return len(devices)


def take_part() -> None:
    """What a process other than the first does before anything else: keep silent, end when the first one does."""
    logging.disable(logging.CRITICAL)
    parent = int(os.environ.get(PARENT, 0))
    if parent:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


@contextmanager
def processes(number: int, folder: Path) -> Iterator[None]:
    """Start the other processes of a run on this machine, if it has any, and end them with it.

    Raises:
        UserError: one of them failed, with its own message; its output is in the run's folder.
    """
    if number == 1 or "LOCAL_RANK" in os.environ:
        yield
        return
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(number),
    }
    mine = {**shared, "LOCAL_RANK": "0", "RANK": "0"}
    before = {name: os.environ.get(name) for name in mine}
    started = [_start(index, shared, folder) for index in range(1, number)]
    os.environ.update(mine)
    over = threading.Event()
    threading.Thread(target=_watch, args=(started, over, folder), daemon=True).start()
    try:
        yield
        _wait(started, ENDING)
    except (KeyboardInterrupt, SystemExit, SIGTERMException, UserError):
        raise
    except Exception as error:
        _wait(
            started, 3.0, for_all=False
        )  # the failure of another ends this one a moment before it ends itself
        if message := _failure(started, folder):
            raise UserError(message) from error
        raise
    finally:
        over.set()
        for process in started:
            process.kill()
        _restore(before)
        leave()


def leave() -> None:
    """Give up the group of processes, which otherwise warns at the program's end."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _start(index: int, shared: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **shared, "LOCAL_RANK": str(index), "RANK": str(index)}
    environment[PARENT] = str(os.getpid())
    with _output(folder, index).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *sys.argv, *QUIET],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _output(folder: Path, index: int) -> Path:
    return folder / f"process_{index}.log"


def _wait(started: list[subprocess.Popen[bytes]], seconds: float, for_all: bool = True) -> None:
    """Until all have ended, or any has failed where that is enough, or the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        codes = [process.poll() for process in started]
        if None not in codes or (not for_all and any(codes)):
            return
        time.sleep(0.05)


def _failure(started: list[subprocess.Popen[bytes]], folder: Path) -> str | None:
    """What a process that failed had to say: a user's mistake as it is, all else with the place of its output."""
    for index, process in enumerate(started, start=1):
        code = process.poll()
        if not code:
            continue
        output = _output(folder, index)
        text = output.read_text(errors="replace").strip()
        if code == 2 and text:
            return text
        how = (
            f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (status {code})"
        )
        return (
            f"process {index} of this run {how}; its output is in {output}. What was saved before is kept, and the "
            "same command continues."
        )
    return None


def _watch(started: list[subprocess.Popen[bytes]], over: threading.Event, folder: Path) -> None:
    """A process that waits for one that is gone may wait for ever, out of reach of Python: end it all the same."""
    while not over.wait(0.5):
        if any(process.poll() for process in started):
            if over.wait(GRACE):
                return
            sys.stderr.write(f"{_failure(started, folder)}\n")
            sys.stderr.flush()
            os._exit(2)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
