"""The result files that a table rests on: where they are, how they get there, what is wrong."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_seqlm.config import run_folder
from lit_seqlm.errors import UserError
from lit_seqlm.reproduce.plan import COMMON_ROOT, FINISHED, Job, is_stale, output_root, plan
from lit_seqlm.reproduce.row import Row
from lit_seqlm.reproduce.table import Table
from lit_seqlm.results import read_result, write_atomically

MACHINE_PATH = re.compile(r"(?:^|[\s=:'\"(\[,])(?:~|[A-Za-z]:\\|/[\w.-]+/)")


def committed_path(table: Table, row: str, seed: int) -> Path:
    return table.folder / "results" / table.name / f"{row}-seed_{seed}.json"


def load_records(table: Table) -> dict[str, dict[int, dict[str, Any]]]:
    """Every row's finished runs, by seed, from where the table keeps them."""
    records: dict[str, dict[int, dict[str, Any]]] = {row.id: {} for row in table.rows}
    for job in plan(table, table.rows, output_root()):
        if table.results == "committed":
            record = _read(committed_path(table, *job.key))
        else:
            record = read_result(job.folder)
            record = record if record and record.get("status") in FINISHED else None
        if record:
            records[job.row][job.seed] = record
    whole = dict(records)
    for row in table.rows:
        if row.prefix:
            found = whole[table.source(row).id].items()
            records[row.id] = {seed: _of(record, row.prefix) for seed, record in found}
    return records


def _of(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The same run, with those of its numbers that begin with `prefix` as its test numbers."""
    metrics = {
        f"test/{name.removeprefix(prefix)}": value
        for name, value in record.get("metrics", {}).items()
        if name.startswith(prefix)
    }
    return {**record, "metrics": metrics}


def keep(table: Table, job: Job) -> bool:
    """Copy a finished run's record beside the table; False where there is nothing new to keep.

    Where this machine keeps its runs is told as `COMMON_ROOT`.

    Raises:
        UserError: if the record is of another run, or still says where on this machine something was.
    """
    record = read_result(job.folder)
    if table.results != "committed" or record is None or record.get("status") not in FINISHED:
        return False
    record = _told_anew(record, output_root())
    (common,) = [other for other in plan(table, [table.row(job.row)]) if other.key == job.key]
    problems = faults(record, table.row(job.row), common)
    if problems:
        raise UserError(f"{job.folder}/result.json cannot be kept: {'; '.join(problems)}.")
    path = committed_path(table, *job.key)
    if _read(path) == record:
        return False
    write_atomically(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return True


def collect(table: Table) -> list[str]:
    """Keep what is finished under this machine's output root, and run nothing.

    Returns:
        Why some finished runs could not be kept.
    """
    problems = []
    for job in plan(table, table.rows, output_root()):
        if is_stale(job):
            problems.append(
                f"{job.title}: {job.folder} holds a run of another recipe than today's."
            )
            continue
        try:
            keep(table, job)
        except UserError as error:
            problems.append(str(error))
    return problems


def faults(record: Mapping[str, Any], row: Row, job: Job) -> list[str]:
    """Why a record cannot stand behind a number."""
    found = [
        f"it has no {key}"
        for key in ("commit", "status", "metrics", "overrides", "scale")
        if key not in record
    ]
    if found:
        return found
    if record["commit"] in ("", "unknown"):
        found.append("it has no commit: run in a git checkout")
    if record.get("seed") != job.seed or job.folder != _folder_of(record, job):
        theirs, ours = " ".join(record["overrides"]), " ".join(job.command)
        found.append(f"it is of another run: {theirs}, the row says {ours}")
    if (row.init_from or record.get("init_from")) and not record.get("origin"):
        found.append("it does not say which weights it started from")
    if record["scale"] != row.scale:
        found.append(f"its scale is {record['scale']!r}, the row says {row.scale!r}")
    found += [
        f"it holds a path of one machine: {text[:80]!r}"
        for text in _texts(record)
        if MACHINE_PATH.search(text)
    ]
    return found


def stray_files(table: Table) -> list[Path]:
    """Kept results that no row and seed of the table asks for."""
    wanted = {committed_path(table, *job.key) for job in plan(table, table.rows)}
    return [
        path
        for path in sorted((table.folder / "results" / table.name).glob("*"))
        if path not in wanted
    ]


def _folder_of(record: Mapping[str, Any], job: Job) -> Path:
    """The run folder that the recorded command has, under the same output root."""
    root = job.folder.parents[1]
    return root / run_folder(record.get("name", ""), record.get("seed", 0), record["overrides"])


def _told_anew(value: Any, root: str) -> Any:
    """The same record with paths under `root` told as under `COMMON_ROOT`."""
    if isinstance(value, dict):
        return {key: _told_anew(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [_told_anew(inner, root) for inner in value]
    if isinstance(value, str):
        return re.sub(rf"(?<![\w./-]){re.escape(root.rstrip('/'))}(?=/|$)", COMMON_ROOT, value)
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path.name} in {path.parent.parent.name}/{path.parent.name} is not JSON: {error}"
        ) from None
    if not isinstance(record, dict):
        raise UserError(f"{path.name} is not the record of a run.")
    return record
