"""What tuning a memory on validation found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_seqlm.plots.axes import finish, look

ALONG = ("k", "theta", "bandwidth_scale", "size")  # the first of them that was varied is the x axis
LABELS = {
    "k": "neighbours k",
    "bandwidth_scale": "bandwidth (times the k-th distance)",
    "size": "window (tokens)",
}
SHORT = {"bandwidth_scale": "bandwidth scale", "size": "window"}
MOST = 12  # lines in a panel

Entry = Mapping[str, Any]  # of the evaluation card: memory, setting, ppl


def tuned(tried: Sequence[Entry]) -> dict[str, list[Entry]]:
    """By memory, the settings tried; without memories that had one setting alone."""
    by_memory: dict[str, list[Entry]] = {}
    for entry in tried:
        by_memory.setdefault(entry["memory"], []).append(entry)
    return {memory: entries for memory, entries in by_memory.items() if len(entries) > 1}


def settings(tried: Sequence[Entry], title: str) -> Figure:
    """Validation perplexity of every setting with its own best weight, a panel for each memory that was tuned.

    Args:
        tried: ``tried_on_validation`` of an evaluation card; at least one memory with two settings.
    """
    panels = tuned(tried)
    figure = Figure(figsize=(9.0, 0.5 + 3.4 * len(panels)), layout="constrained")
    figure.suptitle(f"settings tried, each with its own best weight\n{title}", fontsize=11)
    rows = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (memory, entries) in zip(rows, panels.items(), strict=True):
        _panel(axes, memory, entries)
    return figure


def _panel(axes: Axes, memory: str, entries: list[Entry]) -> None:
    """Values along the x axis stand evenly, in their order: they need not be numbers."""
    varied = _varied(entries)
    key = next((name for name in ALONG if name in varied), varied[0])
    values = sorted({entry["setting"][key] for entry in entries}, key=_order)
    best = min(entries, key=lambda entry: entry["ppl"])
    lines = _lines(entries, [name for name in varied if name != key])
    for number, (label, line) in enumerate(list(lines.items())[:MOST]):
        points = sorted((values.index(entry["setting"][key]), entry["ppl"]) for entry in line)
        axes.plot(*np.array(points).T, label=label, **look(number))
    at = values.index(best["setting"][key])
    axes.plot(at, best["ppl"], "o", markersize=14, fillstyle="none", color="black", label="chosen")
    turned = 45 if len(values) > MOST else 0
    axes.set_xticks(range(len(values)), [_value(value) for value in values], rotation=turned)
    axes.set(xlabel=LABELS.get(key, key), ylabel="validation perplexity")
    axes.margins(x=0.05, y=0.1)
    axes.ticklabel_format(axis="y", useOffset=False)
    more = f" (the {MOST} best of {len(lines)} lines)" if len(lines) > MOST else ""
    axes.set_title(f"{memory}{more}: {best['ppl']:.2f} at best", fontsize=10)
    finish(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _varied(entries: list[Entry]) -> list[str]:
    names = list(entries[0]["setting"])
    return [name for name in names if len({entry["setting"][name] for entry in entries}) > 1]


def _lines(entries: list[Entry], others: list[str]) -> dict[str, list[Entry]]:
    """Entries that differ along the x axis alone, under what they share; the best line first if not all fit."""
    lines: dict[str, list[Entry]] = {}
    for entry in entries:
        shared = [_told(name, entry["setting"][name]) for name in others]
        lines.setdefault(", ".join(shared) or "tried", []).append(entry)
    if len(lines) <= MOST:
        return lines
    return dict(sorted(lines.items(), key=lambda line: min(entry["ppl"] for entry in line[1])))


def _order(value: Any) -> tuple[int, Any]:
    """Numbers, then words, then no limit."""
    return (2, 0) if value is None else (int(isinstance(value, str)), value)


def _told(name: str, value: Any) -> str:
    """``gaussian``, but ``theta 1.0``: a word speaks for itself."""
    words = isinstance(value, str) and name == "kernel"
    return _value(value) if words else f"{SHORT.get(name, name)} {_value(value)}"


def _value(value: Any) -> str:
    if value is None:
        return "all"
    return f"{value:,}" if isinstance(value, int) else str(value)
