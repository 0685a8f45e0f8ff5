"""What stands in one cell of a table: numbers, their spread, marks and sources."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.aggregate import Spread
from lit_seqlm.reproduce.row import Metric, Row
from lit_seqlm.reproduce.strict import Printed
from lit_seqlm.reproduce.table import Table

UNVERIFIED = "(unverified)"
NOTHING = "-"


def own_number(value: float, metric: Metric) -> str:
    """As it was written, or as the metric says where that is not known."""
    return f"{value:.{value.digits}f}" if isinstance(value, Printed) else number(value, metric)


def number(value: float, metric: Metric) -> str:
    return f"{value:.{metric.digits}f}"


def percent(value: float) -> str:
    """Two decimals below ten percent, one above."""
    return f"{value:+.{2 if abs(value) < 10 else 1}f}"


def spread_text(value: Spread | None, metric: Metric) -> str:
    if value is None:
        return NOTHING
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
    texts = [spread_text(value, table.metrics[key]) for key, value in values.items()]
    return f"{' / '.join(texts)} ({max(known)})"


def count_text(records: Mapping[int, Mapping[str, Any]], keys: Sequence[str]) -> str:
    """Of the runs behind a line."""
    known = [value.num for key in keys if (value := aggregate.measured(records, key))]
    return str(max(known)) if known else NOTHING


def commit_text(records: Mapping[int, Mapping[str, Any]]) -> str:
    found = [
        f"{record.get('commit', '?')[:7]}{' (changed)' * bool(record.get('dirty'))}"
        for record in records.values()
    ]
    return ", ".join(dict.fromkeys(found)) or NOTHING


def status_text(table: Table, row: Row, records: Mapping[int, Mapping[str, Any]]) -> str:
    text = aggregate.status(table, row, records)
    outside = aggregate.outside_tolerance(table, row, records)
    return f"{text}, out of tolerance" if outside else text


def paper_text(table: Table, row: Row, sources: list[str], keys: Sequence[str]) -> str:
    """Every metric that is shown, whether the numbers are verified, and where they stand."""
    if row.paper is None:
        return NOTHING
    values = [paper_number(table, row, key) for key in keys]
    mark = "" if row.paper.verified else f" {UNVERIFIED}"
    return f"{' / '.join(values)}{mark} [{sources.index(row.paper.where) + 1}]"


def paper_number(table: Table, row: Row, key: str) -> str:
    """With its own deviation, and marked if it alone was not read in the source."""
    if row.paper is None or key not in row.paper.value:
        return NOTHING
    told = own_number if table.published_digits == "own" else number
    numbers = [row.paper.value[key], *([row.paper.sd[key]] if key in row.paper.sd else [])]
    mark = f" {UNVERIFIED}" if key in row.paper.unverified else ""
    return " ± ".join(told(value, table.metrics[key]) for value in numbers) + mark


def expected_number(table: Table, row: Row, key: str) -> str:
    if row.expected is None or key not in row.expected.value:
        return NOTHING
    return own_number(row.expected.value[key], table.metrics[key])


def expected_text(table: Table, row: Row, keys: Sequence[str]) -> str:
    """Every metric that is shown."""
    texts = [expected_number(table, row, key) for key in keys]
    return " / ".join(texts) if set(texts) != {NOTHING} else NOTHING


def source_text(row: Row, sources: list[str]) -> str:
    if row.paper is None:
        return NOTHING
    mark = "" if row.paper.verified else f" {UNVERIFIED}"
    return f"[{sources.index(row.paper.where) + 1}]{mark}"


def paper_effect_text(table: Table, row: Row, sources: list[str]) -> str:
    effect = aggregate.paper_effect(table, row)
    if effect is None:
        return NOTHING
    mark = "" if effect.verified else f" {UNVERIFIED}"
    source = f" [{sources.index(effect.where) + 1}]" if effect.where else ""
    return f"{percent(effect.percent)} %{mark}{source}"
