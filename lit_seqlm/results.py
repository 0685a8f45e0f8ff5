"""result.json: what a run was and what came out. The source of truth; W&B is a view of it."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

SCHEMA = 1
PROGRAM = ("run.py", "lit_seqlm", "conf", "pyproject.toml")  # what decides a run's numbers
PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "torchmetrics", "rdkit")


@dataclass
class Result:
    """One run's record, written when it starts, when it ends and when it fails.

    `config_hash`, `text` (a digest; empty where the config alone says which text it is) and `origin` (which run the
    weights came from, as their file has it) are the run's identity. `run_id` is drawn once, and kept when it goes on.
    `card` says how an evaluation was made: what was scored, from which state, what was tuned on what.
    `headline` names the metric that a sweep minimises.
    `status` is running, done, diverged, interrupted or failed. `wall_seconds` counts all attempts of a resumed run.
    """

    name: str
    seed: int
    overrides: list[str]
    config_hash: str
    scale: str
    init_from: str | None
    run_id: str = ""
    text: str = ""
    origin: dict[str, Any] | None = None
    status: str = "running"
    error: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    headline: str = "test/ppl"
    device: str = ""
    wall_seconds: float = 0.0
    tokens_per_second: float | None = None
    peak_memory_mb: float | None = None
    num_parameters: int | None = None
    attempts: int = 1
    commit: str = ""
    dirty: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def stamp(self) -> "Result":
        """Fill in where and with what this runs."""
        self.commit, self.dirty = git_state()
        self.versions = {name: version(name) for name in PACKAGES} | {
            "python": platform.python_version()
        }
        return self

    def write(self, folder: Path) -> None:
        write_atomically(
            folder / "result.json", json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
        )


def read_result(folder: Path) -> dict[str, Any] | None:
    """The record in a run folder; None where there is none or it is not readable."""
    try:
        return json.loads((folder / "result.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None


def write_atomically(path: Path, text: str) -> None:
    """Whole or not at all: a reader or a crash never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def git_state() -> tuple[str, bool]:
    """Commit and whether the program differs from it, new files too; ("unknown", False) outside a checkout."""
    root = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout

    try:
        return git("rev-parse", "--short=12", "HEAD").strip(), bool(
            git("status", "--porcelain", "--", *PROGRAM).strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN or infinity: such numbers are left out, and the status says why."""
    return {
        name: value
        for name, value in metrics.items()
        if value == value and abs(value) != float("inf")
    }
