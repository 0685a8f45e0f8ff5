"""Errors of numbers, each in its own unit."""

# N = sequences with a label, K = targets

import math
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lit_seqlm.metrics.bootstrap import TAILS, Interval, sampled_means
from lit_seqlm.metrics.collect import LabelMetric, Named, mean_of
from lit_seqlm.metrics.ranks import CountedSpearman, spearman

SAMPLES = 1000
WITH_INTERVALS = ("spearman", "mae", "mse")


class Measured(Named, Protocol):
    """What a metric asks of a target.

    Attributes:
        unit: of its labels.
        chemists_unit: in which people of its field read an error; may be the same.
        chemists_factor: from the one to the other.

    It may also have `measures`, what its field reads, and `cut`, where its labels are parted.
    """

    @property
    def unit(self) -> str: ...
    @property
    def chemists_unit(self) -> str: ...
    @property
    def chemists_factor(self) -> float: ...


class RegressionMetrics(LabelMetric):
    """Errors for each target and, where they have a meaning, their means over targets.

    ``mae/NAME``, ``rmse/NAME``, ``r2/NAME``, ``spearman/NAME``; ``std_mae/NAME``, the MAE over the
    standard deviation of the very labels it is measured on; ``mae_UNIT/NAME`` where a field reads
    errors in another unit. ``std_mae``, ``r2`` and ``spearman`` are means over targets, ``mae`` and
    ``rmse`` too where all targets have one unit. Where they have not, or it is not known (""), the
    mean MAE has no unit: it is called ``avg_mae_paper``, to be compared with papers that print it and
    with nothing else. A target whose labels are all equal has no ``r2``, ``std_mae`` or
    ``spearman``, and one without labels has nothing. ``mse/NAME`` where a target has it among its
    measures; one with a `cut` has ``spearman_above/NAME``, ``spearman_below/NAME``, and ``mae`` and ``mse``
    alike, of the rows whose label is above it, and of the others. A target with ``spearman`` among its measures has
    ``spearman_low/NAME`` and ``spearman_high/NAME``, the ends of a 95 % interval that draws rows, of ``mae`` and
    ``mse`` alike, and on each side of the cut (``spearman_above_low/NAME``).

    Args:
        targets: their names and units, in the order of the columns.
    """

    def __init__(self, targets: Sequence[Measured]):
        super().__init__(targets)
        self.targets = list(targets)
        units = {target.unit for target in targets}
        self.one_unit = len(units) == 1 and ("" not in units or len(targets) == 1)

    def numbers(self, prediction_NK: np.ndarray, label_NK: np.ndarray) -> dict[str, float]:
        values: dict[str, float] = {}
        for column, target in enumerate(self.targets):
            present_N = ~np.isnan(label_NK[:, column])
            pair = prediction_NK[present_N, column], label_NK[present_N, column]
            errors = regression_errors(*pair)
            values |= {f"{measure}/{target.name}": value for measure, value in errors.items()}
            if errors and "mse" in getattr(target, "measures", ()):
                values[f"mse/{target.name}"] = errors["rmse"] ** 2
            if "spearman" in getattr(target, "measures", ()):
                values |= interval_ends(error_intervals(*pair), "", target.name)
            if (cut := getattr(target, "cut", None)) is not None:
                values |= errors_by_side(*pair, cut, target.name)
            if errors and target.chemists_unit != target.unit:
                other = f"mae_{plain_unit(target.chemists_unit)}/{target.name}"
                values[other] = errors["mae"] * target.chemists_factor
        for measure in ("std_mae", "r2", "spearman"):
            values |= mean_of(values, measure, self.names)
        if self.one_unit:
            for measure in ("mae", "rmse"):
                values |= mean_of(values, measure, self.names)
        elif mean := mean_of(values, "mae", self.names):
            values["avg_mae_paper"] = mean["mae"]
        return values | {"labels": float((~np.isnan(label_NK)).sum())}


def regression_errors(prediction_N: np.ndarray, label_N: np.ndarray) -> dict[str, float]:
    """mae, rmse and, where the labels differ, std_mae, r2 and spearman; empty without labels."""
    if not len(label_N):
        return {}
    error_N = prediction_N - label_N
    mae, square = float(np.abs(error_N).mean()), float(np.square(error_N).mean())
    values = {"mae": mae, "rmse": math.sqrt(square)}
    variance = float(label_N.var())
    if variance > 0:
        values |= {"std_mae": mae / math.sqrt(variance), "r2": 1 - square / variance}
        rank = spearman(prediction_N, label_N)
        values |= {} if math.isnan(rank) else {"spearman": rank}
    return values


def errors_by_side(
    prediction_N: np.ndarray, label_N: np.ndarray, cut: float, name: str
) -> dict[str, float]:
    """spearman, mae and mse of the labels above the cut, and of the others, with the ends of their intervals."""
    values = {}
    for side, rows_N in (("_above", label_N > cut), ("_below", label_N <= cut)):
        pair = prediction_N[rows_N], label_N[rows_N]
        errors = regression_errors(*pair)
        errors |= {"mse": errors["rmse"] ** 2} if errors else {}
        for measure in WITH_INTERVALS:
            if measure in errors:
                values[f"{measure}{side}/{name}"] = errors[measure]
        values |= interval_ends(error_intervals(*pair), side, name)
    return values


def error_intervals(
    prediction_N: np.ndarray, label_N: np.ndarray, num_samples: int = SAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Of `WITH_INTERVALS`; rows are drawn. Empty of fewer than two.

    A sample whose labels, or whose predictions, are all equal has no ``spearman`` and is passed over.
    """
    num_rows = len(label_N)
    if num_rows < 2:
        return {}
    error_N = prediction_N - label_N
    loss_2N = np.stack([np.abs(error_N), np.square(error_N)])
    rank, generator = CountedSpearman(prediction_N, label_N), np.random.default_rng(seed)
    samples = []
    for _ in range(num_samples):
        counts_N = np.bincount(generator.integers(num_rows, size=num_rows), minlength=num_rows)
        counts_N = counts_N.astype(np.float64)
        samples.append([rank(counts_N), *(loss_2N @ counts_N / num_rows)])
    means = [rank(np.ones(num_rows)), *loss_2N.mean(1)]
    found = {}
    for name, drawn, mean in zip(WITH_INTERVALS, np.array(samples).T, means, strict=True):
        if (known := drawn[~np.isnan(drawn)]).size:
            low, high = np.percentile(known, TAILS)
            found[name] = Interval(float(low), float(high), float(mean))
    return found


def interval_ends(found: dict[str, Interval], side: str, name: str) -> dict[str, float]:
    """``MEASURE_low/NAME`` and ``MEASURE_high/NAME``, with the side of a cut after the measure."""
    values = {}
    for measure, one in found.items():
        values[f"{measure}{side}_low/{name}"] = one.low
        values[f"{measure}{side}_high/{name}"] = one.high
    return values


def plain_unit(unit: str) -> str:
    """A unit as part of a name: ``kcal/mol`` becomes ``kcal_mol``."""
    return re.sub(r"[^A-Za-z0-9]+", "_", unit).strip("_")


def mae_change(
    prediction_a_NK: np.ndarray,
    prediction_b_NK: np.ndarray,
    label_NK: np.ndarray,
    unit_K: np.ndarray,
    num_samples: int,
    seed: int,
) -> Interval:
    """Interval of the change of the MAE from a to b, each target's over its `unit_K`; negative is better.

    Whole sequences are drawn, with all their labels, as errors of one molecule are alike. A missing
    label takes part nowhere.

    Args:
        unit_K: what each target's errors are divided by: ones, or the labels' standard deviations.
    """
    change_NK = np.abs(prediction_b_NK - label_NK) - np.abs(prediction_a_NK - label_NK)
    row_L, column_L = np.nonzero(~np.isnan(label_NK))
    means, mean = sampled_means(
        (change_NK / unit_K)[row_L, column_L], row_L, num_samples=num_samples, seed=seed
    )
    low, high = np.percentile(means, TAILS)
    return Interval(float(low), float(high), mean)
