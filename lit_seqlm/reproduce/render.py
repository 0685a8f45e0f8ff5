"""A table as Markdown for the committed README, and in the terminal: the same cells."""

from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from lit_seqlm.reproduce.aggregate import Records
from lit_seqlm.reproduce.by_metric import laid_out
from lit_seqlm.reproduce.cells import NOTHING, UNVERIFIED
from lit_seqlm.reproduce.table import Paper, Table
from lit_seqlm.reproduce.view import MEASURED, MOST_IN_A_CELL, Column, view

# Of a terminal, for a table by metric: its width, a metric's name, and what stands between columns.
MOST_COLUMNS, MOST_OF_A_NAME, AROUND = 80, 18, 2


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
        shown = laid_out(table, records)
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


def terminal(table: Table, records: Records) -> RichTable | Group:
    """For a terminal of 100 columns: of two metrics the headline alone; neither scale nor commit of a row.

    By metric, models that do not fit beside each other stand below.
    """
    if table.layout == "metrics":
        return _stacked(table, records)
    many = len(table.metrics) > MOST_IN_A_CELL
    shown = view(table, records, () if many else [table.headline])
    of_rows = next((part.cells for part in shown.parts if part.title == "commit"), [])
    commits = [text for text in dict.fromkeys(of_rows) if text != NOTHING]
    notes = shown.notes + ([f"Commits: {', '.join(commits)}."] if commits else [])
    grid = RichTable(title=table.title, box=SIMPLE_HEAD, padding=(0, 0 if many else 1, 0, 0))
    grid.caption = "\n".join(notes)
    grid.title_justify = grid.caption_justify = "left"
    kept = [part for part in shown.parts if part.header]
    narrow = many or sum(part.title in MEASURED.values() for part in kept) > 1
    for part in kept:
        grid.add_column(
            part.header,
            justify="left" if part.width else "right",
            no_wrap="measured" in part.header and not narrow,
            min_width=part.width or part.longest_word,
        )
    for line in zip(*[part.cells for part in kept], strict=True):
        grid.add_row(*[cell.replace("[", "\\[") for cell in line])
    return grid


def _stacked(table: Table, records: Records) -> Group:
    shown = laid_out(table, records)
    first, *models = shown.parts
    groups: list[list[Column]] = [[]]
    for part in models:
        if groups[-1] and sum(map(_width, (first, *groups[-1], part))) > MOST_COLUMNS:
            groups.append([])
        groups[-1].append(part)
    grids = []
    for group in groups:
        grid = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for part in (first, *group):
            header = part.header.replace("[", "\\[")
            justify: Literal["left", "right"] = "left" if part is first else "right"
            grid.add_column(header, justify=justify, width=_width(part) - AROUND)
        for line in zip(*[part.cells for part in (first, *group)], strict=True):
            grid.add_row(*[cell.replace("[", "\\[") for cell in line])
        grids.append(grid)
    return Group(Text(table.title, "italic"), *grids, *[Text(note) for note in shown.notes])


def _width(part: Column) -> int:
    """What its name, numbers and single words need, with the space around; other cells are folded."""
    if part.keep:
        return min(MOST_OF_A_NAME, max(map(len, part.cells))) + AROUND
    words = [word for text in (part.header, *part.cells) for word in text.split()]
    numbers = [cell for cell in part.cells if cell[:1].isdigit() and "(" not in cell]
    return max(map(len, [*words, *numbers])) + AROUND
