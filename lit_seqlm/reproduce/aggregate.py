"""From the records of runs to what a table says: means, spreads, paired effects, a status."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_seqlm.reproduce.row import Row
from lit_seqlm.reproduce.strict import Printed
from lit_seqlm.reproduce.table import Table

Records = Mapping[str, Mapping[int, Mapping[str, Any]]]  # row id -> seed -> result.json


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; no deviation of a single one."""

    mean: float
    sd: float | None
    num: int


def spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(
        statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
    )


def by_seed(records: Mapping[int, Mapping[str, Any]], metric: str) -> dict[int, float]:
    """The metric of every run that came to its end; a diverged run has no number."""
    return {
        seed: float(record["metrics"][metric])
        for seed, record in sorted(records.items())
        if record.get("status") == "done" and metric in record.get("metrics", {})
    }


def measured(records: Mapping[int, Mapping[str, Any]], metric: str) -> Spread | None:
    return spread(list(by_seed(records, metric).values()))


def paired_effect(
    records: Mapping[int, Mapping[str, Any]], against: Mapping[int, Mapping[str, Any]], metric: str
) -> Spread | None:
    """Change in percent, seed by seed, over the seeds that both rows have."""
    ours, theirs = by_seed(records, metric), by_seed(against, metric)
    both = [seed for seed in ours if seed in theirs and theirs[seed] != 0]
    return spread([100 * (ours[seed] - theirs[seed]) / theirs[seed] for seed in both])


@dataclass(frozen=True)
class PaperEffect:
    """The published change in percent, and whether every number behind it is verified."""

    percent: float
    where: str
    verified: bool


def paper_effect(table: Table, row: Row) -> PaperEffect | None:
    """As the table gives it, or else of the two rows' published headline values."""
    effect = row.effect
    if effect is None:
        return None
    if effect.paper_percent is not None:
        return PaperEffect(effect.paper_percent, effect.paper_where, effect.paper_verified)
    ours, theirs = row.paper, table.row(effect.against).paper
    if not ours or not theirs or not {table.headline} <= ours.value.keys() & theirs.value.keys():
        return None
    base = theirs.value[table.headline]
    percent = 100 * (ours.value[table.headline] - base) / base
    return PaperEffect(percent, "", ours.verified and theirs.verified)


def status(table: Table, row: Row, records: Mapping[int, Mapping[str, Any]]) -> str:
    """A few words: what is behind a row's numbers."""
    if not table.source(row).experiment:
        return table.absent if row.scale == "paper" else "not implemented"
    of = [str(records[seed].get("status")) for seed in row.seeds if seed in records]
    diverged, done = of.count("diverged"), of.count("done")
    parts = [f"{done} of {len(row.seeds)} done"] if 0 < done < len(row.seeds) else []
    parts += [f"{diverged} of {len(row.seeds)} diverged"] if 0 < diverged < len(row.seeds) else []
    if parts:
        return ", ".join(parts)
    return {len(row.seeds): "done" if done else "diverged"}.get(done or diverged, "not run")


def demanded(table: Table, row: Row) -> dict[str, float]:
    """What a row's tolerance speaks of: all expected numbers or else the published headline."""
    if row.tolerance is None:
        return {}
    if row.expected:
        return row.expected.value
    return {table.headline: row.paper.value[table.headline]} if row.paper else {}


def outside_tolerance(
    table: Table, row: Row, records: Mapping[int, Mapping[str, Any]]
) -> dict[str, Spread]:
    """The measured numbers that are farther from those demanded than the row's percent.

    An expected number is known to half a unit of its last digit only, which is allowed on top.
    """
    found = {}
    for metric, target in demanded(table, row).items():
        value = measured(records, metric)
        allowed = abs(target) * (row.tolerance or 0) / 100
        if row.expected and isinstance(target, Printed):
            allowed += 0.5 * 10**-target.digits
        if value and not (math.isfinite(value.mean) and abs(value.mean - target) <= allowed):
            found[metric] = value
    return found


def within_tolerance(
    table: Table, row: Row, records: Mapping[int, Mapping[str, Any]]
) -> bool | None:
    """Whether all measured numbers are as near as the row demands; None: nothing is demanded or measured."""
    if not any(measured(records, metric) for metric in demanded(table, row)):
        return None
    return not outside_tolerance(table, row, records)
