"""A table turned round: a line for each metric, a column for each model and what is known of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.aggregate import Records
from lit_seqlm.reproduce.cells import (
    NOTHING,
    UNVERIFIED,
    commit_text,
    count_text,
    effect_text,
    expected_number,
    paper_effect_text,
    paper_number,
    spread_text,
    status_text,
)
from lit_seqlm.reproduce.row import Row
from lit_seqlm.reproduce.table import Table
from lit_seqlm.reproduce.view import Column, View, label_of, notes_of, sources_of, view

BEHIND = ("effect measured", "effect paper", "runs", "status", "commit")  # lines under the metrics
ALWAYS = "status"


def laid_out(table: Table, records: Records) -> View:
    """As the table's `layout` says."""
    return by_metric(table, records) if table.layout == "metrics" else view(table, records)


def by_metric(table: Table, records: Records) -> View:
    """Published, expected and measured numbers of each row, in this order; no line without a number.

    A row that only gives weights to others has no column: a line under the table tells of it.
    """
    sources, keys = sources_of(table), list(table.metrics)
    labels = [*map(label_of, table.metrics.values()), *BEHIND]
    hidden = [row for row in table.rows if _only_needed(table, row, records)]
    models = [
        column
        for row in table.rows
        if row not in hidden
        for column in _columns(table, row, records, sources, keys)
    ]
    there = [
        place
        for place, label in enumerate(labels)
        if label == ALWAYS or any(model.cells[place] != NOTHING for model in models)
    ]
    first = Column("measure", labels, "measure", keep=True)
    parts = [
        replace(part, cells=[part.cells[place] for place in there]) for part in (first, *models)
    ]
    notes = [
        f"Others go on from “{row.label}”: {status_text(table, row, records.get(row.id, {}))}, "
        f"commit {commit_text(records.get(row.id, {}))}."
        for row in hidden
    ]
    return View(parts, notes_of(table, sources, keys) + notes)


def _only_needed(table: Table, row: Row, records: Records) -> bool:
    """Whether others need the row and it has no number of this table itself."""
    needed = {other for each in table.rows for other in (each.init_from, *each.needs)}
    own = records.get(row.id, {})
    numbers = row.paper or row.expected or any(aggregate.by_seed(own, key) for key in table.metrics)
    return row.id in needed and not numbers


def _columns(
    table: Table, row: Row, records: Records, sources: list[str], keys: Sequence[str]
) -> Iterator[Column]:
    runs = bool(table.source(row).experiment)
    if row.paper:
        mark = "" if row.paper.verified else f" {UNVERIFIED}"
        kind = f"paper{mark} [{sources.index(row.paper.where) + 1}]"
        state = NOTHING if runs else table.absent
        behind = [NOTHING, paper_effect_text(table, row, sources), NOTHING, state, NOTHING]
        yield _column(row, kind, [*[paper_number(table, row, key) for key in keys], *behind])
    if row.expected:
        kind = f"expected [{sources.index(row.expected.where) + 1}]"
        numbers = [expected_number(table, row, key) for key in keys]
        yield _column(row, kind, [*numbers, *[NOTHING] * len(BEHIND)])
    if runs or not (row.paper or row.expected):
        reduced = row.scale == "reduced" and not row.prefix
        cells = _measured(table, row, records, sources, keys)
        yield _column(row, "reduced scale" if reduced else "measured", cells)


def _column(row: Row, kind: str, cells: list[str]) -> Column:
    return Column(f"{row.label}, {kind}", cells, f"{row.label}\n{kind}")


def _measured(
    table: Table, row: Row, records: Records, sources: list[str], keys: Sequence[str]
) -> list[str]:
    own: Mapping[int, Mapping[str, Any]] = records.get(row.id, {})
    against = records.get(row.effect.against, {}) if row.effect else {}
    published = NOTHING if row.paper else paper_effect_text(table, row, sources)
    return [
        *[spread_text(aggregate.measured(own, key), table.metrics[key]) for key in keys],
        effect_text(aggregate.paired_effect(own, against, table.headline) if row.effect else None),
        published,
        count_text(own, keys),
        status_text(table, row, own),
        commit_text(own),
    ]
