"""Attention maps against distances, by layer, and the strongest pairs of one sequence."""

# L = layers, P = points

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lit_seqlm.metrics.bootstrap import Interval
from lit_seqlm.plots.axes import COLORS, LINES, finish, look

NEAR, FAR = COLORS[0], COLORS[1]  # pairs with and without a link

ByClass = Mapping[str, Sequence[Interval]]  # class of pairs -> one interval for each layer


def similarity_by_layer(
    found: Mapping[str, ByClass], paper: Mapping[str, Mapping[str, float]], title: str
) -> Figure:
    """A panel for each class of pairs: cosine similarity at every layer, with the band of its 95 % interval.

    Args:
        found: for each kind of weights (trained, and what it stands beside), by class.
        paper: published values by their label and class, as lines at the right edge.
    """
    classes = list(next(iter(found.values())))
    figure = Figure(figsize=(3.0 * len(classes), 4.0), layout="constrained")
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, classes, strict=True):
        for number, (kind, by_class) in enumerate(found.items()):
            _layers(axes, by_class[name], kind, number)
        values = {label: of[name] for label, of in paper.items() if name in of}
        for number, (label, value) in enumerate(values.items()):
            style = {"color": "black", "linestyle": LINES[number % len(LINES)], "linewidth": 1.5}
            axes.axhline(value, 0.85, 1.0, label=label, **style)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        finish(axes)
    panels[0].set_ylabel("cosine similarity with attention")
    panels[0].set_ylim(bottom=0)
    figure.suptitle(title, fontsize=11)
    labels: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    figure.legend(list(labels.values()), list(labels), loc="outside right center", frameon=False)  # type: ignore[call-overload]
    return figure


def _layers(axes: Axes, intervals: Sequence[Interval], kind: str, number: int) -> None:
    layers = range(1, len(intervals) + 1)
    style = look(number)
    axes.plot(layers, [one.mean for one in intervals], label=kind, **style)
    low, high = [one.low for one in intervals], [one.high for one in intervals]
    axes.fill_between(layers, low, high, color=style["color"], alpha=0.2, linewidth=0)


def strongest_pairs(
    map_PP: np.ndarray,
    places_P2: np.ndarray,
    labels_P: Sequence[str],
    links: Sequence[tuple[int, int, float]],
    title: str,
) -> Figure:
    """Points and their links on paper, as many of the strongest pairs as there are links, and the whole map.

    Args:
        map_PP: symmetric attention between points, zero on the diagonal.
        links: what joins points (begin, end, order): drawn in grey, as one line or more.
    """
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    drawn, map_axes = figure.subplots(1, 2)
    for begin, end, order in links:
        for line_22 in _strokes(places_P2[begin], places_P2[end], order):
            drawn.plot(*line_22.T, color="0.6", linewidth=1.5, zorder=1)
    _pairs(drawn, map_PP, places_P2, links)
    for number, (label, place_2) in enumerate(zip(labels_P, places_P2, strict=True)):
        box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "none"}
        drawn.text(*place_2, label, ha="center", va="center", zorder=4, bbox=box, fontsize=11)
        drawn.annotate(str(number), place_2, (9, 7), textcoords="offset points", fontsize=7)
    drawn.set_aspect("equal")
    drawn.margins(0.15)
    drawn.axis("off")
    shown = map_axes.imshow(map_PP, cmap="Blues", vmin=0)
    ticks = [f"{label}{number}" for number, label in enumerate(labels_P)]
    map_axes.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=8)
    map_axes.set_yticks(range(len(ticks)), ticks, fontsize=8)
    figure.colorbar(shown, ax=map_axes, label="attention, mean of heads, symmetric")
    figure.suptitle(title, fontsize=11)
    return figure


def top_pairs(map_PP: np.ndarray, num_pairs: int) -> list[tuple[int, int]]:
    """Pairs (low, high) of different points with the largest weights, the strongest first."""
    rows, columns = np.triu_indices(len(map_PP), 1)
    order = np.argsort(-map_PP[rows, columns], kind="stable")[:num_pairs]
    return [(int(rows[pair]), int(columns[pair])) for pair in order]


def _pairs(
    axes: Axes,
    map_PP: np.ndarray,
    places_P2: np.ndarray,
    links: Sequence[tuple[int, int, float]],
) -> None:
    """Wider is stronger; the colour says whether a link is there too."""
    pairs = top_pairs(map_PP, len(links))
    linked = {(min(begin, end), max(begin, end)) for begin, end, _ in links}
    most = max((map_PP[pair] for pair in pairs), default=1.0) or 1.0
    for color, label, chosen in (
        (NEAR, "strong and linked", [pair for pair in pairs if pair in linked]),
        (FAR, "strong, not linked", [pair for pair in pairs if pair not in linked]),
    ):
        segments = [places_P2[list(pair)] for pair in chosen]
        widths = [1 + 6 * map_PP[pair] / most for pair in chosen]
        lines = LineCollection(segments, linewidths=widths, colors=color, alpha=0.5, zorder=2)
        lines.set_label(f"{label}: {len(chosen)}")
        axes.add_collection(lines)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, fontsize=9)


def _strokes(begin_2: np.ndarray, end_2: np.ndarray, order: float) -> list[np.ndarray]:
    """One line for each order of a link, side by side; an aromatic one of 1.5 has two."""
    num_lines = int(np.ceil(order))
    along_2 = end_2 - begin_2
    aside_2 = np.array([-along_2[1], along_2[0]]) / max(float(np.linalg.norm(along_2)), 1e-9)
    shifts = (np.arange(num_lines) - (num_lines - 1) / 2) * 0.16
    return [np.stack([begin_2, end_2]) + shift * aside_2 for shift in shifts]
