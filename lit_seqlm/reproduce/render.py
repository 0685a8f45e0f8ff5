"""A table as Markdown for the committed README, and in the terminal: the same cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.aggregate import Records, Spread
from lit_seqlm.reproduce.table import Metric, Paper, Row, Table

UNVERIFIED = "(unverified)"
NOTHING = "-"
MEASURED = {
    "paper": "measured mean ± sd (n)",
    "reduced": "measured at reduced scale, mean ± sd (n)",
}
IN_TERMINAL = {  # header and least width
    "row": ("row", 14),
    "paper": ("paper", 12),
    MEASURED["paper"]: ("measured\nmean ± sd (n)", 12),
    MEASURED["reduced"]: ("measured at\nreduced scale", 13),
    "effect measured": ("effect\nmeasured", 12),
    "effect paper": ("effect\npaper", 12),
    "status": ("status", 10),
}


@dataclass(frozen=True)
class View:
    """A table ready to be written: its columns, one list of cells a row, and the lines under it."""

    columns: list[str]
    lines: list[list[str]]
    notes: list[str]


def view(table: Table, records: Records, metrics: Sequence[str] = ()) -> View:
    """All metrics of the table side by side in one cell, or only those named."""
    scales = [
        scale for scale in ("paper", "reduced") if any(row.scale == scale for row in table.rows)
    ]
    after = ["effect measured", "effect paper", "status", "scale", "commit"]
    columns = ["row", "paper", *[MEASURED[scale] for scale in scales], *after]
    sources = _sources(table)
    keys = tuple(metrics) or tuple(table.metrics)
    lines = [_cells(table, row, records, scales, sources, keys) for row in table.rows]
    return View(columns, lines, _notes(table, sources, keys))


def markdown(paper: Paper, tables: Sequence[tuple[Table, Records]], command: str) -> str:
    """The whole README of a paper."""
    parts = [
        f"# {paper.title}",
        paper.reference.strip(),
        "Rendered from the YAML files and result files of this folder, not edited by hand: "
        f"`{command}`.",
        f"`{UNVERIFIED}` marks a published number that was not read in its source. A run at "
        "reduced scale stands in a column of its own: its *effect* can be compared with the "
        "paper's, its numbers can not. `±` is one standard deviation over seeds; effects are "
        "paired by seed.",
    ]
    parts += [paper.note.strip()] if paper.note else []
    for table, records in tables:
        shown = view(table, records)
        parts += [f"## {table.title}"]
        parts += [table.note.strip()] if table.note else []
        grid = [shown.columns, ["---"] * len(shown.columns), *shown.lines]
        parts.append(
            "\n".join(
                "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in grid
            )
        )
        parts += ["\n".join(f"- {note}" for note in shown.notes)] if shown.notes else []
        parts += [table.after.strip()] if table.after else []
    return "\n\n".join(parts) + "\n"


def terminal(table: Table, records: Records) -> RichTable:
    """For a terminal of 100 columns: the headline only, and only columns with something in them."""
    shown = view(table, records, [table.headline])
    commits = dict.fromkeys(line[-1] for line in shown.lines if line[-1] != NOTHING)
    notes = shown.notes + ([f"Commits: {', '.join(commits)}."] if commits else [])
    grid = RichTable(title=table.title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.caption = "\n".join(notes)
    grid.title_justify = grid.caption_justify = "left"
    filled = [any(line[i] != NOTHING for line in shown.lines) for i in range(len(shown.columns))]
    kept = [i for i, name in enumerate(shown.columns) if filled[i] and name in IN_TERMINAL]
    narrow = sum(shown.columns[i] in MEASURED.values() for i in kept) > 1
    for i in kept:
        header, width = IN_TERMINAL[shown.columns[i]]
        grid.add_column(header, no_wrap="measured" in header and not narrow, min_width=width)
    for line in shown.lines:
        grid.add_row(*[line[i].replace("[", "\\[") for i in kept])
    return grid


def number(value: float, metric: Metric) -> str:
    return f"{value:.{metric.digits}f}"


def percent(value: float) -> str:
    """Two decimals below ten percent, one above."""
    return f"{value:+.{2 if abs(value) < 10 else 1}f}"


def spread_text(value: Spread, metric: Metric) -> str:
    return number(value.mean, metric) + (
        f" ± {number(value.sd, metric)}" if value.sd is not None else ""
    )


def effect_text(value: Spread | None) -> str:
    if value is None:
        return NOTHING
    sd = f" ± {value.sd:.2f}" if value.sd is not None else ""
    return f"{percent(value.mean)}{sd} % ({value.num})"


def measured_text(
    table: Table, records: Mapping[int, Mapping[str, Any]], keys: Sequence[str]
) -> str:
    """Every metric that is shown, and the number of runs."""
    values = {key: aggregate.measured(records, key) for key in keys}
    known = [value.num for value in values.values() if value]
    if not known:
        return NOTHING
    texts = [
        spread_text(value, table.metrics[key]) if value else NOTHING
        for key, value in values.items()
    ]
    return f"{' / '.join(texts)} ({max(known)})"


def commit_text(records: Mapping[int, Mapping[str, Any]]) -> str:
    found = [
        f"{record.get('commit', '?')[:7]}{' (changed)' * bool(record.get('dirty'))}"
        for record in records.values()
    ]
    return ", ".join(dict.fromkeys(found)) or NOTHING


def _cells(
    table: Table,
    row: Row,
    records: Records,
    scales: list[str],
    sources: list[str],
    keys: Sequence[str],
) -> list[str]:
    own = records.get(row.id, {})
    text = aggregate.status(row, own)
    if aggregate.within_tolerance(table, row, own) is False:
        text += ", out of tolerance"
    change = None
    if row.effect:
        base = records.get(row.effect.against, {})
        change = aggregate.paired_effect(own, base, table.headline)
    measured = measured_text(table, own, keys)
    return [
        row.label,
        _paper_text(table, row, sources, keys),
        *[measured if row.scale == scale else NOTHING for scale in scales],
        effect_text(change),
        _paper_effect_text(table, row, sources),
        text,
        row.scale,
        commit_text(own),
    ]


def _paper_text(table: Table, row: Row, sources: list[str], keys: Sequence[str]) -> str:
    if row.paper is None:
        return NOTHING
    given = row.paper.value
    values = [number(given[k], table.metrics[k]) if k in given else NOTHING for k in keys]
    mark = "" if row.paper.verified else f" {UNVERIFIED}"
    return f"{' / '.join(values)}{mark} [{sources.index(row.paper.where) + 1}]"


def _paper_effect_text(table: Table, row: Row, sources: list[str]) -> str:
    effect = aggregate.paper_effect(table, row)
    if effect is None:
        return NOTHING
    mark = "" if effect.verified else f" {UNVERIFIED}"
    source = f" [{sources.index(effect.where) + 1}]" if effect.where else ""
    return f"{percent(effect.percent)} %{mark}{source}"


def _sources(table: Table) -> list[str]:
    places = [row.paper.where for row in table.rows if row.paper]
    places += [
        row.effect.paper_where for row in table.rows if row.effect and row.effect.paper_where
    ]
    return list(dict.fromkeys(places))


def _notes(table: Table, sources: list[str], keys: Sequence[str]) -> list[str]:
    metrics = [
        f"{m.label}{f' in {m.unit}' if m.unit else ''} ({m.direction} is better)"
        for m in (table.metrics[key] for key in keys)
    ]
    notes = [f"Numbers: {' / '.join(metrics)}."]
    against: dict[str, list[str]] = {}
    for row in table.rows:
        if row.effect:
            against.setdefault(row.effect.against, []).append(row.label)
    for other, labels in against.items():
        label = table.metrics[table.headline].label
        base = table.row(other).label
        notes.append(f"Effect of {_quoted(labels)}: the change of {label} against “{base}”.")
    if sources:
        notes.append(
            "Sources: " + "; ".join(f"[{i}] {source}" for i, source in enumerate(sources, 1)) + "."
        )
    return notes


def _quoted(labels: list[str]) -> str:
    return ", ".join(f"“{label}”" for label in labels)
