"""Run what a table still lacks: subprocesses of run.py, several at once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from lit_seqlm.reproduce.plan import FINISHED, Job, state
from lit_seqlm.results import read_result

LOG = "launch.log"
POLL_SECONDS = 0.2


@dataclass
class Outcome:
    """What a launch did: how each job ended, and why some did not."""

    ended: dict[tuple[str, int], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def launch(
    jobs: list[Job],
    num_parallel: int,
    console: Console,
    finished: Callable[[Job], None],
    more: tuple[str, ...] = (),
) -> Outcome:
    """Run the jobs that have no result yet, those needed first; a failure stops only what needs it.

    Args:
        finished: called with every job that has a result, new or old.
        more: overrides for all of them that are no part of their identity.
    """
    outcome = Outcome()
    waiting = [job for job in jobs if not _settled(job, outcome, finished)]
    if len(waiting) < len(jobs):
        console.print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there already")
    running: dict[Job, subprocess.Popen[bytes]] = {}
    with _progress(console) as bar, _ended_with_us(running):
        task = bar.add_task("runs", total=len(waiting))
        while waiting or running:
            _drop_blocked(waiting, outcome, console)
            for job in _ready(waiting, running, outcome)[: num_parallel - len(running)]:
                waiting.remove(job)
                if not _settled(job, outcome, finished):  # another row may ask for the same run
                    running[job] = start(job, num_parallel, more)
                    told = f"{job.title}: started, its log is {job.folder / LOG}"
                    console.print(told, highlight=False, soft_wrap=True)
            done = len(outcome.ended) - (len(jobs) - bar.tasks[task].total)  # type: ignore[operator]
            news = "; ".join(f"{job.row}: {_last_line(job.folder / LOG)[:60]}" for job in running)
            bar.update(task, completed=done, description=news)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                _end(job, running.pop(job).returncode, outcome, console)
                _settled(job, outcome, finished)
            time.sleep(POLL_SECONDS if running else 0)
    return outcome


def _settled(job: Job, outcome: Outcome, finished: Callable[[Job], None]) -> bool:
    """Whether the job has a result; if so, it is noted and handed on."""
    now = state(job.folder)
    if now in FINISHED:
        outcome.ended[job.key] = now
        finished(job)
    return now in FINISHED


def _ready(waiting: list[Job], running: Iterable[Job], outcome: Outcome) -> list[Job]:
    """What can start: all it needs is there, nobody is at work in its folder; one job a folder."""
    taken = {job.folder for job in running}
    first = {
        job.folder: job
        for job in reversed(waiting)
        if all(need in outcome.ended for need in job.needs)
    }
    return [job for folder, job in reversed(first.items()) if folder not in taken]


def start(job: Job, num_parallel: int, more: tuple[str, ...] = ()) -> "subprocess.Popen[bytes]":
    """`python run.py ...` with its share of the cores and its output in the run folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS") or str(
        max(1, (os.cpu_count() or 1) // num_parallel)
    )
    with (job.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "run.py", *job.command, *more],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads},
        )


def _end(job: Job, returncode: int, outcome: Outcome, console: Console) -> None:
    """Note how a run ended, by its record; its output tells of a failure before there was one."""
    record = read_result(job.folder) or {}
    status = str(record.get("status", "failed"))
    if status not in FINISHED:
        status = "stopped" if status == "interrupted" else "failed"
        reason = record.get("error") or _last_line(job.folder / LOG)
        outcome.problems.append(
            f"{job.title}: {status} (exit {returncode}): {reason} Log: {job.folder / LOG}"
        )
    outcome.ended[job.key] = status
    metrics = ", ".join(
        f"{k} {v:.2f}"
        for k, v in record.get("metrics", {}).items()
        if k in ("val/ppl", "test/ppl", "test/mae")
    )
    seconds = f"{record.get('wall_seconds', 0):.0f} s"
    parts = [f"{job.title}: {status}", *([metrics] if metrics else []), seconds, str(job.folder)]
    console.print(", ".join(parts), highlight=False, soft_wrap=True)


def _drop_blocked(waiting: list[Job], outcome: Outcome, console: Console) -> None:
    """Give up what needs a run that did not come to its end."""
    for job in list(waiting):
        broken = [need for need in job.needs if outcome.ended.get(need, "done") != "done"]
        if broken:
            waiting.remove(job)
            need = f"{broken[0][0]}, seed {broken[0][1]}, which is {outcome.ended[broken[0]]}"
            outcome.ended[job.key] = "blocked"
            outcome.problems.append(f"{job.title}: not started, it needs {need}")
            console.print(f"{job.title}: not started", highlight=False)


def _progress(console: Console) -> Progress:
    columns = (
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
    )
    shown = console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=not shown, expand=True)


@contextmanager
def _ended_with_us(running: dict[Job, "subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Stopped from outside, stop the runs too: they save themselves, the same command continues."""
    try:
        yield
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it said nothing."
