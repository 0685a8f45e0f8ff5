"""Which runs a table asks for: their commands, folders, order and states."""

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lit_seqlm.config import run_folder
from lit_seqlm.errors import UserError
from lit_seqlm.reproduce.recipe import hash_of
from lit_seqlm.reproduce.row import Row
from lit_seqlm.reproduce.table import Table
from lit_seqlm.results import read_result

FINISHED = ("done", "diverged")
COMMON_ROOT = "outputs"  # as committed records say it, whatever this machine uses


@dataclass(frozen=True)
class Job:
    """One run of a table."""

    row: str
    seed: int
    command: tuple[str, ...]
    folder: Path
    needs: tuple[tuple[str, int], ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.row, self.seed

    @property
    def title(self) -> str:
        return f"{self.row}, seed {self.seed}"


def output_root() -> str:
    """Where runs go, as conf/paths says it."""
    return os.environ.get("LIT_SEQLM_OUTPUTS", COMMON_ROOT)


def plan(table: Table, rows: Iterable[Row], root: str = COMMON_ROOT) -> list[Job]:
    """The runs of these rows and of all they need, those needed first, in folders under `root`."""
    jobs: dict[tuple[str, int], Job] = {}

    def add(row: Row, seed: int, waiting: tuple[str, ...]) -> None:
        if row.id in waiting:
            circle = " -> ".join([*waiting, row.id])
            raise UserError(f"{table.name}: rows need each other in a circle: {circle}.")
        if (row.id, seed) in jobs:
            return
        needs = needed(table, row, seed)
        for other, other_seed in needs:
            add(table.row(other), other_seed, (*waiting, row.id))
        command = overrides(table, row, seed, root)
        jobs[row.id, seed] = Job(row.id, seed, command, folder(row, seed, command, root), needs)

    for row in map(table.source, rows):
        for seed in row.seeds if row.experiment else ():
            add(row, seed, ())
    return list(jobs.values())


def needed(table: Table, row: Row, seed: int) -> tuple[tuple[str, int], ...]:
    """Rows and seeds that must have run before: of the only seed, of the same seed, or of all."""
    needs = [(other, s) for other in row.needs for s in table.row(other).seeds]
    if row.init_from:
        needs.insert(0, (row.init_from, origin_seed(table.row(row.init_from), row, seed)))
    return tuple(needs)


def origin_seed(origin: Row, row: Row, seed: int) -> int:
    if len(origin.seeds) == 1:
        return origin.seeds[0]
    if seed not in origin.seeds:
        raise UserError(
            f"row {row.id}: seed {seed} continues row {origin.id}, "
            f"which has the seeds {list(origin.seeds)} only."
        )
    return seed


def overrides(table: Table, row: Row, seed: int, root: str) -> tuple[str, ...]:
    """What follows `run.py` on the command line."""
    words = [f"experiment={row.experiment}", f"seed={seed}", *row.overrides]
    if row.overrides and row.scale == "paper":
        words.append("scale=paper")  # the table says so of its own variations
    if row.init_from:
        origin = table.row(row.init_from)
        start = origin_seed(origin, row, seed)
        path = folder(origin, start, overrides(table, origin, start, root), root)
        words.append(f"init_from={path}")
    return tuple(words)


def folder(row: Row, seed: int, command: Iterable[str], root: str) -> Path:
    """The folder that run.py will choose: a run is named as its experiment's file, or by name=."""
    command = list(command)
    names = [word.removeprefix("name=") for word in command if word.startswith("name=")]
    return Path(root, run_folder(names[-1] if names else row.experiment, seed, command))


def state(job_folder: Path) -> str:
    """done, diverged, running, stopped (the same command continues it), failed or missing."""
    record = read_result(job_folder)
    if record is None:
        return "missing"
    status = str(record.get("status"))
    if status in (*FINISHED, "failed"):
        return status
    return "running" if status == "running" and _locked(job_folder) else "stopped"


def is_stale(job: Job) -> bool:
    """Whether the folder holds a finished run of another recipe than the one that stands there today."""
    record = read_result(job.folder)
    if record is None or record.get("status") not in FINISHED:
        return False
    return recipe_hash(job) not in (None, record.get("config_hash"))


def recipe_hash(job: Job) -> str | None:
    """What run.py will record as `config_hash` of this job; None if that follows from weights that are not here."""
    return hash_of(list(job.command))


def _locked(job_folder: Path) -> bool:
    """Whether a process holds the run folder; its record alone does not say that it still lives."""
    try:
        with (job_folder / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
