"""Figures of a reading against loops over tokens; the neighbours of a word against brute force."""

# N = tokens, D = hidden size

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

from lit_seqlm import plots
from lit_seqlm.cache.mixture import Mixture
from lit_seqlm.cache.neighbourhood import neighbourhood
from lit_seqlm.data.synthetic import SyntheticText
from lit_seqlm.errors import UserError
from lit_seqlm.plots.settings import MOST, tuned
from lit_seqlm.plots.stream import word_classes
from tests.unit.test_cache import local, store, stream, unbounded
from tests.unit.test_evaluate import evaluate, text


def made_up(num_tokens: int = 1300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    static_N = rng.gamma(2, 3, num_tokens)
    return {
        "static": static_N,
        "near": static_N - rng.normal(0.3, 1, num_tokens),
        "all": static_N - rng.normal(0.5, 1, num_tokens),
    }


def lines(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {str(line.get_label()): line.get_data() for line in axes.get_lines()}


def test_a_curve_is_what_the_last_tokens_saved() -> None:
    nlls = made_up()
    ends, saved = lines(plots.along_stream(nlls, "run").axes[0])["near"]
    assert (ends[0], ends[-1]) == (60, 1300)  # a twentieth, to one digit
    for end, percent in zip(ends[::50], saved[::50], strict=True):
        last = slice(end - 60, end)
        ratio = np.exp(nlls["near"][last].mean()) / np.exp(nlls["static"][last].mean())
        assert percent == pytest.approx(100 * (1 - ratio))


def test_a_token_without_probability_is_left_out_of_the_curve() -> None:
    nlls = made_up()
    nlls["near"][700] = nlls["static"][900] = nlls["near"][900] = np.inf
    ends, saved = lines(plots.along_stream(nlls, "run").axes[0])["near"]
    assert np.isfinite(saved).all()
    at = int(np.searchsorted(ends, 710))
    kept = [n for n in range(ends[at] - 60, ends[at]) if n != 700]
    expected = np.mean(nlls["near"][kept] - nlls["static"][kept])
    assert saved[at] == pytest.approx(100 * (1 - np.exp(expected)))


def test_words_are_classed_by_rank_and_new_ones_by_whether_they_were_seen() -> None:
    words_N = np.array([0, 9, 10, 50, 57, 50, 29, 57, 57])
    class_N, labels = word_classes(words_N, vocab_size=50)
    told = [labels[number].replace("\n", " ") for number in class_N]
    first, again = "new: first", "new: again"
    assert told == [
        "1 to 10", "1 to 10", "11 to 30", first, first, again, "11 to 30", again, again,
    ]  # fmt: skip
    assert [label.replace("\n", " ") for label in labels] == [
        "1 to 10", "11 to 30", first, again,
    ]  # fmt: skip


def test_a_class_shows_the_mean_of_its_words() -> None:
    nlls = made_up()
    words_N = np.random.default_rng(1).integers(0, 400, len(nlls["static"]))
    level, saved = plots.by_rank(nlls, words_N, 1000, "run").axes
    static, near = (lines(level)[name][1] for name in ("static model", "near"))
    bounds = [(0, 10), (10, 30), (30, 100), (100, 300), (300, 1000)]
    assert len(near) == len(bounds)
    for number, (low, high) in enumerate(bounds):
        chosen = [n for n, word in enumerate(words_N) if low <= word < high]
        assert near[number] == pytest.approx(np.mean([nlls["near"][n] for n in chosen]))
        assert static[number] == pytest.approx(np.mean([nlls["static"][n] for n in chosen]))
        assert f"{100 * len(chosen) / len(words_N):.0f} %"[:1] in _ticks(saved)[number]
    np.testing.assert_allclose(saved.get_lines()[1].get_ydata(), static - near)


def _ticks(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def tried(memory: str, **grid: list[Any]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(memory))
    settings = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    return [{"memory": memory, "setting": one, "ppl": 100 + rng.random()} for one in settings]


def test_settings_are_drawn_against_k_and_the_best_is_marked() -> None:
    entries = tried("far", k=[1024, None, 16], kernel=["gaussian", "epanechnikov"], theta=[1.0])
    entries += tried("words")
    figure = plots.settings(entries, "run")
    assert list(tuned(entries)) == ["far"]
    (axes,) = figure.axes
    assert _ticks(axes) == ["16", "1,024", "all"]
    drawn = lines(axes)
    assert list(drawn) == ["gaussian", "epanechnikov", "chosen"]
    best = min(entries[:6], key=lambda entry: entry["ppl"])
    position = [16, 1024, None].index(best["setting"]["k"])
    assert [float(value[0]) for value in drawn["chosen"]] == [position, best["ppl"]]
    for name in ("gaussian", "epanechnikov"):
        mine = {e["setting"]["k"]: e["ppl"] for e in entries[:6] if e["setting"]["kernel"] == name}
        assert drawn[name][1].tolist() == [mine[16], mine[1024], mine[None]]


def test_of_many_lines_the_best_are_drawn() -> None:
    entries = tried("near", theta=[0.1, 0.2], size=list(range(1, 31)))
    drawn = lines(plots.settings(entries, "run").axes[0])
    assert len(drawn) == MOST + 1
    by_size = {
        size: [e["ppl"] for e in entries if e["setting"]["size"] == size] for size in range(1, 31)
    }
    best = sorted(by_size, key=lambda size: min(by_size[size]))[:MOST]
    assert list(drawn)[:-1] == [f"window {size}" for size in best]


def everything() -> dict[str, Figure]:
    """The fullest figures that there can be."""
    nlls, rng = made_up(200_000), np.random.default_rng(0)
    words_N = (10 ** rng.uniform(0, 5.2, 200_000)).astype(np.int64)
    grid = {
        "k": [1, 8, 64, 256, 1024, None],
        "kernel": ["gaussian", "epanechnikov"],
        "theta": [0.5, 1, 2, 4, 8, 16],
    }
    entries = tried("far", **grid) + tried("near", theta=[i / 10 for i in range(1, 12)])
    title = "stream_memories/seed_1-0a46e907, test text of domain_stream"
    return {
        "memories": plots.along_stream(nlls, title),
        "frequency": plots.by_rank(nlls, words_N, 130_000, title),
        "settings": plots.settings(entries, title),
    }


def test_no_text_overlaps_another() -> None:
    for name, figure in everything().items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        boxes = [(text, text.get_window_extent(canvas.get_renderer())) for text in shown(figure)]
        assert len(boxes) > 10
        for (one, box), (other, beside) in itertools.combinations(boxes, 2):
            assert not box.overlaps(beside), (name, one, other)
        for one, box in boxes:
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, (name, one)


def shown(figure: Figure) -> list[Text]:
    """Titles, labels, legends, and what stands at the ticks within the axes."""
    legends = [*figure.legends]
    found: list[Text] = []
    for axes in figure.axes:
        legends += [legend] if (legend := axes.get_legend()) else []
        found += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
    found += [text for legend in legends for text in legend.get_texts()]
    return [text for text in found if text.get_text() and text.get_visible()]


@pytest.mark.parametrize(
    ("num_tokens", "left"), [(3000, []), (12_000, ["frequency", "memories", "settings"])]
)
def test_an_evaluation_leaves_its_figures_unless_the_stream_is_short(
    num_tokens: int, left: list[str], tmp_path: Path
) -> None:
    cache = Mixture({"near": local(grid={"theta": [0.5, 2.0]}), "far": unbounded()})
    evaluate(tmp_path, cache, text(source=SyntheticText(20, num_tokens, 3, 0)))
    drawn = sorted((tmp_path / "plots").glob("*.png")) if left else []
    assert [path.stem for path in drawn] == left
    assert (tmp_path / "plots").exists() == bool(left)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@pytest.mark.parametrize("normalize", ["none", "l2"])
@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov", "rbf", "dot"])
def test_neighbours_are_the_nearest_past_states(kernel: str, normalize: str) -> None:
    hidden_ND, words_N = stream()
    metric = "dot" if kernel == "dot" else "l2"
    memory = unbounded(
        kernel=kernel, normalize=normalize, store=store(metric=metric), bandwidth_scale=0.8
    )
    for position in (5, 40, 299):
        found = neighbourhood(memory, hidden_ND, words_N, position, width=3)
        states = hidden_ND.double().numpy()
        if normalize == "l2":
            states = states / np.linalg.norm(states, axis=1, keepdims=True)
        distances = [float(np.linalg.norm(states[i] - states[position])) for i in range(position)]
        nearness = (
            [-d for d in distances] if metric == "l2" else states[:position] @ states[position]
        )
        expected = np.argsort(-np.asarray(nearness))[:9].tolist()
        assert [one.position for one in found] == expected
        for one in found:
            assert one.distance == pytest.approx(distances[one.position], abs=1e-4)
            assert one.word == words_N[one.position]
            whole = [*one.before, one.word, *one.after]
            first, last = max(0, one.position - 3), min(one.position + 4, position)
            assert whole == words_N[first:last].tolist()


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov", "rbf"])
def test_weights_sum_to_what_the_memory_says(kernel: str) -> None:
    hidden_ND, words_N = stream()
    memory = unbounded(kernel=kernel)
    memory.reset(6)
    said_N = memory.step(hidden_ND, words_N, torch.zeros(len(words_N))).log_prob_SN[0].exp()
    for position in range(2, 300, 9):
        near = neighbourhood(memory, hidden_ND, words_N, position, width=0)
        share = sum(one.weight for one in near if one.word == words_N[position])
        assert share == pytest.approx(float(said_N[position]), abs=1e-5)
        assert sum(one.weight for one in near) == pytest.approx(1, abs=1e-5)


def test_neighbours_do_not_see_what_comes() -> None:
    hidden_ND, words_N = stream()
    before = neighbourhood(unbounded(), hidden_ND, words_N, 100, width=5)
    changed_ND, changed_N = _changed_from(hidden_ND, 101), _changed_from(words_N, 100)
    assert neighbourhood(unbounded(), changed_ND, changed_N, 100, width=5) == before


def _changed_from(values: Tensor, start: int) -> Tensor:
    changed = values.clone()
    changed[start:] += 1
    return changed


def test_nothing_is_near_the_beginning_and_there_is_nothing_beyond_the_end() -> None:
    hidden_ND, words_N = stream()
    assert neighbourhood(unbounded(), hidden_ND, words_N, 0, width=5) == []
    (only,) = neighbourhood(unbounded(kernel="rbf"), hidden_ND, words_N, 1, width=5)
    assert (only.position, only.weight, only.before, only.after) == (0, 1.0, [], [])
    for position in (-1, 300):
        with pytest.raises(UserError, match="Take 0 to 299"):
            neighbourhood(unbounded(), hidden_ND, words_N, position, width=5)
