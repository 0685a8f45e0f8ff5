"""What memories add to a model: along a stream, and for frequent and rare words."""

# N = scored tokens, P = points of a curve, C = classes of words

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lit_seqlm.plots.axes import finish, look

SHARE = 0.05  # of the stream that a running mean covers
POINTS = 500  # of a curve
RANKS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)  # last of a class
NEW = ("new:\nfirst", "new:\nagain")


def along_stream(nlls: Mapping[str, np.ndarray], title: str) -> Figure:
    """Percent of perplexity saved over the last tokens read: 100 (1 - exp(mean nll - mean nll of the model)).

    Args:
        nlls: float64 (N,), of each token in nats: `static`, the model without a memory, and at least one more.
    """
    base = next(iter(nlls))  # what the memories stand beside
    num_tokens = len(nlls[base])
    window = _round(max(1, int(SHARE * num_tokens)))
    ends_P = np.unique(np.linspace(window, num_tokens, POINTS).astype(np.int64))
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="black", linewidth=1, label="static model")
    for number, name in enumerate(_memories(nlls)):
        change_P = _window_means(_minus(nlls[name], nlls[base]), ends_P, window)
        style = look(number) | {"marker": ""}
        axes.plot(ends_P, 100 * (1 - np.exp(change_P)), label=_shown(name), **style)
    tokens = f"{window:,} tokens" if window > 1 else "token"
    axes.set(xlabel="tokens read", ylabel=f"perplexity saved over the last\n{tokens} (%)")
    axes.set_xlim(0, num_tokens)
    axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_title(f"gain of each memory along the stream\n{title}", fontsize=11)
    finish(axes)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def by_rank(
    nlls: Mapping[str, np.ndarray], words_N: np.ndarray, vocab_size: int, title: str
) -> Figure:
    """Mean nll by how frequent a word is in the model's training text, and what each memory saves of it.

    Ids of known words are ranks in that text, so this holds on any stream. New words stand apart: their first
    occurrence, which no memory can foresee, and the others.

    Args:
        nlls: as for `along_stream`.
        words_N: int64, the tokens; new words have ids from `vocab_size` on.
    """
    base = next(iter(nlls))
    class_N, labels = word_classes(words_N, vocab_size)
    count_C = np.bincount(class_N, minlength=len(labels))
    means = {name: np.bincount(class_N, nll_N) / count_C for name, nll_N in nlls.items()}
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    level, saved = figure.subplots(2, 1, sharex=True)
    level.plot(means[base], color="black", marker=".", label=f"{base} model")
    saved.axhline(0, color="black", linewidth=1)
    for number, name in enumerate(_memories(nlls)):
        level.plot(means[name], label=_shown(name), **look(number))
        saved.plot(_minus(means[base], means[name]), **look(number))
    shares = [
        f"{label}\n{_percent(n / len(words_N))}" for label, n in zip(labels, count_C, strict=True)
    ]
    saved.set_xticks(range(len(labels)), shares, fontsize=8)
    saved.set_xlabel(
        "rank of the word in the model's training text; below, the class's share of the stream"
    )
    level.set_ylabel("mean nll (nats per token)")
    saved.set_ylabel(f"saved against the\n{base} model (nats per token)")
    level.set_title(f"frequent and rare words\n{title}", fontsize=11)
    for axes in (level, saved):
        finish(axes)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def word_classes(words_N: np.ndarray, vocab_size: int) -> tuple[np.ndarray, list[str]]:
    """The class of every token, int64 (N,), and a label for each class that occurs, frequent words first."""
    new_N = words_N >= vocab_size
    first_N = np.zeros(len(words_N), dtype=bool)
    first_N[np.unique(words_N, return_index=True)[1]] = True
    class_N = np.searchsorted(RANKS, words_N + 1)
    class_N[new_N] = len(RANKS) + 1 + ~first_N[new_N]
    lows = (1, *(last + 1 for last in RANKS))
    ranks = [f"{low:,} to\n{last:,}" for low, last in zip(lows, RANKS, strict=False)]
    labels = [*ranks, f"over\n{RANKS[-1]:,}", *NEW]
    present_C, class_N = np.unique(class_N, return_inverse=True)
    return class_N, [labels[number] for number in present_C]


def _memories(nlls: Mapping[str, np.ndarray]) -> list[str]:
    return list(nlls)[1:]


def _shown(name: str) -> str:
    return "all together" if name == "all" else name


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1g} %"


def _round(number: int) -> int:
    """Down, to one digit that is not zero."""
    unit = 10 ** (len(str(number)) - 1)
    return number // unit * unit


def _minus(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """NaN where both are infinite: neither gives the token any probability."""
    with np.errstate(invalid="ignore"):
        return values - others


def _window_means(values_N: np.ndarray, ends_P: np.ndarray, window: int) -> np.ndarray:
    """Of the `window` values before each end; what is not finite (a token without any probability) is left out."""
    finite_N = np.isfinite(values_N)
    sums_N = np.concatenate([[0.0], np.cumsum(np.where(finite_N, values_N, 0.0))])
    counts_N = np.concatenate([[0], np.cumsum(finite_N)])
    count_P = counts_N[ends_P] - counts_N[ends_P - window]
    sum_P = sums_N[ends_P] - sums_N[ends_P - window]
    return np.where(count_P > 0, sum_P / np.maximum(count_P, 1), np.nan)
