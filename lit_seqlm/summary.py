"""What came out of the jobs of a sweep, in one table."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm.console import for_tables
from lit_seqlm.results import read_result

USUAL = {"val/ppl": "val ppl", "test/ppl": "test ppl"}
OTHERS = {"val/std_mae": "val std-MAE", "test/std_mae": "test std-MAE", "test/auroc": "test AUROC"}


def show(folders: list[Path]) -> None:
    """A line for each job that left a record: what it was given and the others were not, and how it ended."""
    records = [(folder, record) for folder in folders if (record := read_result(folder))]
    there = {name for _, record in records for name in record["metrics"]}
    metrics = {name: words for name, words in (USUAL | OTHERS).items() if name in there} or USUAL
    table = Table(
        "job", "status", *metrics.values(), "folder", box=SIMPLE_HEAD, title_justify="left"
    )
    for folder, record in records:
        numbers = [_shown(record["metrics"].get(name)) for name in metrics]
        table.add_row(
            _own(record, [r for _, r in records]), record["status"], *numbers, str(folder)
        )
    for_tables().print(table, highlight=False)


def _own(record: dict[str, Any], records: list[dict[str, Any]]) -> str:
    shared = set.intersection(*(set(other["overrides"]) for other in records))
    return " ".join(word for word in record["overrides"] if word not in shared)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value >= 1 else f"{value:.4f}"
