"""Figures of one or several runs: training curves, and the geometry of the output embedding."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from lit_seqlm.plots.axes import finish, plain_ticks

History = Mapping[str, Sequence[float]]  # column of history.csv -> one number an epoch
WIDE = (9.0, 3.6)


def read_history(path: Path) -> dict[str, list[float]]:
    """The columns of history.csv; an empty cell is not a number."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else {})}


LABELS = {"ppl": "perplexity", "nll": "nats per token", "loss": "loss"}


def curves(histories: Mapping[str, History], metric: str | None = None) -> Figure:
    """Training and validation of one metric for each named run, and its learning rate if it ever moves.

    Args:
        metric: null takes perplexity, or the loss where there is none.
    """
    if metric is None:
        metric = "ppl" if any("train/ppl" in history for history in histories.values()) else "loss"
    figure = Figure(figsize=WIDE, layout="constrained")
    moves = any(len(set(history["lr"])) > 1 for history in histories.values())
    quality, *rates = figure.subplots(
        1, 1 + moves, width_ratios=[2, 1][: 1 + moves], squeeze=False
    )[0]
    if len(histories) == 1:
        figure.suptitle(next(iter(histories)))
    for number, (name, history) in enumerate(histories.items()):
        epochs, color = history["epoch"], f"C{number}"
        for stage, line in (("train", "--"), ("val", "-")):
            if values := history.get(f"{stage}/{metric}"):
                label = f"{name}, {stage}" if len(histories) > 1 else stage
                quality.plot(epochs, values, line, color=color, marker=".", label=label)
        for rate in rates:
            rate.plot(epochs, history["lr"], color=color, marker=".", drawstyle="steps-mid")
    quality.set(xlabel="epoch", ylabel=LABELS.get(metric, metric))
    quality.set_yscale("log")
    plain_ticks(quality)
    quality.legend(frameon=False)
    for rate in rates:
        rate.set(xlabel="epoch", ylabel="learning rate")
        rate.set_ylim(bottom=0)
    for axes in (quality, *rates):
        finish(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def embedding(geometries: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """For each named run, its (nearest-neighbour distances, singular values)."""
    figure = Figure(figsize=WIDE, layout="constrained")
    near, spectrum = figure.subplots(1, 2)
    if len(geometries) == 1:
        figure.suptitle(f"output embedding of {next(iter(geometries))}")
    for name, (distances, singular) in geometries.items():
        ordered = distances.sort().values.cpu()
        label = name if len(geometries) > 1 else None
        near.plot(
            [100 * (i + 0.5) / len(ordered) for i in range(len(ordered))], ordered, label=label
        )
        spectrum.plot(range(1, len(singular) + 1), singular.cpu(), label=label)
    near.set(xlabel="words, nearest first (%)", ylabel="distance to the nearest other word")
    near.set_xlim(0, 100)
    near.set_ylim(bottom=0)
    spectrum.set(xlabel="rank", ylabel="singular value")
    spectrum.set_yscale("log")
    plain_ticks(spectrum)
    for axes in (near, spectrum):
        finish(axes)
        if len(geometries) > 1:
            axes.legend(frameon=False)
    return figure
