"""Which columns a table has: one for all metrics where they are two, one for each where they are more."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.aggregate import Records, Spread
from lit_seqlm.reproduce.cells import (
    NOTHING,
    commit_text,
    count_text,
    effect_text,
    expected_number,
    expected_text,
    measured_text,
    paper_effect_text,
    paper_number,
    paper_text,
    source_text,
    spread_text,
    status_text,
)
from lit_seqlm.reproduce.row import Metric, Row
from lit_seqlm.reproduce.table import SCALES, Table

MOST_IN_A_CELL = 2  # metrics: "60.0 / 57.3" is read at once, four numbers are not
MEASURED = {
    "paper": "measured mean ± sd (n)",
    "reduced": "measured at reduced scale, mean ± sd (n)",
}
BETTER = {"lower": "Lower is better", "higher": "Higher is better", "none": "Neither way is better"}


@dataclass(frozen=True)
class Column:
    """A title, the same in a terminal's few columns, and a cell for each row.

    Args:
        header: in a terminal; an empty one is not shown there.
        width: in a terminal, at least.
        keep: whether it stays where nothing is in it.
    """

    title: str
    cells: list[str]
    header: str = ""
    width: int = 0
    keep: bool = False

    @property
    def longest_word(self) -> int:
        """What would be cut in two by a narrower column."""
        return max(len(word) for text in (self.header, *self.cells) for word in text.split())


@dataclass(frozen=True)
class View:
    """A table ready to be written: its columns, and the lines under it."""

    parts: list[Column]
    notes: list[str]

    @property
    def columns(self) -> list[str]:
        return [part.title for part in self.parts]

    @property
    def lines(self) -> list[list[str]]:
        """One list of cells a row."""
        return [list(line) for line in zip(*[part.cells for part in self.parts], strict=True)]


def view(table: Table, records: Records, metrics: Sequence[str] = ()) -> View:
    """All metrics of the table, or only those named; without the columns in which nothing stands."""
    keys = tuple(metrics) or tuple(table.metrics)
    sources = sources_of(table)
    numbers = _side_by_side if len(keys) > MOST_IN_A_CELL else _in_one_cell
    parts = [
        Column("row", [row.label for row in table.rows], "row", 14, keep=True),
        *numbers(table, records, sources, keys),
        *_behind(table, records, sources),
    ]
    shown = [part for part in parts if part.keep or set(part.cells) != {NOTHING}]
    return View(shown, notes_of(table, sources, keys))


def _in_one_cell(
    table: Table, records: Records, sources: list[str], keys: Sequence[str]
) -> list[Column]:
    headers = {
        "paper": ("measured\nmean ± sd (n)", 12),
        "reduced": ("measured at\nreduced scale", 13),
    }
    published = [paper_text(table, row, sources, keys) for row in table.rows]
    expected = [expected_text(table, row, keys) for row in table.rows]
    columns = [Column("paper", published, "paper", 12), Column("expected", expected, "expected")]
    for scale in SCALES:
        cells = [
            measured_text(table, records.get(row.id, {}), keys) if row.scale == scale else NOTHING
            for row in table.rows
        ]
        columns.append(Column(MEASURED[scale], cells, *headers[scale]))
    return columns


def _side_by_side(
    table: Table, records: Records, sources: list[str], keys: Sequence[str]
) -> list[Column]:
    """Published numbers, their source, measured numbers and how many runs are behind them."""
    columns = []
    for key in keys:
        cells = [paper_number(table, row, key) for row in table.rows]
        columns.append(_of_metric(table.metrics[key], "paper", "paper", cells))
    columns.append(
        Column("source", [source_text(row, sources) for row in table.rows], "source", 12)
    )
    for key in keys:
        cells = [expected_number(table, row, key) for row in table.rows]
        columns.append(_of_metric(table.metrics[key], "expected", "expected", cells))
    for scale, kind in (("paper", "measured"), ("reduced", "reduced scale")):
        for key in keys:
            cells = [
                spread_text(_measured(records, row, key) if row.scale == scale else None, metric)
                for metric in [table.metrics[key]]
                for row in table.rows
            ]
            columns.append(_of_metric(table.metrics[key], kind, kind.split()[0], cells))
    counts = [count_text(records.get(row.id, {}), keys) for row in table.rows]
    columns.append(Column("n", counts, "n"))
    return columns


def _of_metric(metric: Metric, kind: str, short: str, cells: list[str]) -> Column:
    label = label_of(metric)
    return Column(f"{label}, {kind}", cells, f"{label}\n{short}")


def label_of(metric: Metric) -> str:
    return f"{metric.label} in {metric.unit}" if metric.unit else metric.label


def _measured(records: Records, row: Row, key: str) -> Spread | None:
    return aggregate.measured(records.get(row.id, {}), key)


def _behind(table: Table, records: Records, sources: list[str]) -> list[Column]:
    """Effects, and what a row's numbers rest on."""
    rows, own = table.rows, [records.get(row.id, {}) for row in table.rows]
    effects = [
        effect_text(
            aggregate.paired_effect(of, records.get(row.effect.against, {}), table.headline)
            if row.effect
            else None
        )
        for row, of in zip(rows, own, strict=True)
    ]
    published = [paper_effect_text(table, row, sources) for row in rows]
    status = [status_text(table, row, of) for row, of in zip(rows, own, strict=True)]
    return [
        Column("effect measured", effects, "effect\nmeasured", 12),
        Column("effect paper", published, "effect\npaper", 12),
        Column("status", status, "status", 10, keep=True),
        Column("scale", [row.scale for row in rows], keep=True),
        Column("commit", [commit_text(of) for of in own]),
    ]


def sources_of(table: Table) -> list[str]:
    places = [row.paper.where for row in table.rows if row.paper]
    places += [row.expected.where for row in table.rows if row.expected]
    places += [
        row.effect.paper_where for row in table.rows if row.effect and row.effect.paper_where
    ]
    return list(dict.fromkeys(places))


def notes_of(table: Table, sources: list[str], keys: Sequence[str]) -> list[str]:
    notes = _directions([table.metrics[key] for key in keys])
    against: dict[str, list[str]] = {}
    for row in table.rows:
        if row.effect:
            against.setdefault(row.effect.against, []).append(row.label)
    for other, labels in against.items():
        label = table.metrics[table.headline].label
        base = table.row(other).label
        notes.append(f"Effect of {quoted(labels)}: the change of {label} against “{base}”.")
    if sources:
        notes.append(
            "Sources: " + "; ".join(f"[{i}] {source}" for i, source in enumerate(sources, 1)) + "."
        )
    return notes


def _directions(metrics: list[Metric]) -> list[str]:
    """What the numbers of a cell are, in their order; of columns with names, only which way is better."""
    if len(metrics) > MOST_IN_A_CELL:
        return [
            f"{said}: {', '.join(metric.label for metric in metrics if metric.direction == way)}."
            for way, said in BETTER.items()
            if any(metric.direction == way for metric in metrics)
        ]
    told = [
        f"{metric.label}{f' in {metric.unit}' if metric.unit else ''}"
        + (f" ({metric.direction} is better)" if metric.direction != "none" else "")
        for metric in metrics
    ]
    return [f"Numbers: {' / '.join(told)}."]


def quoted(labels: list[str]) -> str:
    return ", ".join(f"“{label}”" for label in labels)
