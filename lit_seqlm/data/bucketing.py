"""Batches of sequences of like length, under a budget of tokens: little padding, steps of even cost."""

# N = sequences

import numpy as np

HALVINGS = 20  # of the interval in which the least budget lies


def budget_batches(
    lengths_N: np.ndarray, token_budget: int, window: int, rng: np.random.Generator, multiple: int
) -> list[np.ndarray]:
    """Rows of each batch of an epoch, every row once, in a random order.

    Rows are permuted, cut into windows, sorted by length within each, and cut where one more row would take rows x
    longest beyond the budget. Then the batches are shuffled. A row longer than the budget is a batch of its own.

    Args:
        lengths_N: tokens of each row.
        token_budget: padded tokens of a batch, at most.
        window: rows sorted together; more means less padding and less chance.
        multiple: a batch's width is rounded up to one of these.
    """
    order = rng.permutation(len(lengths_N))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths_N[rows], kind="stable")]
        batches += cut_by_budget(rows, lengths_N[rows], token_budget, multiple)
    return [batches[index] for index in rng.permutation(len(batches))]


def cut_by_budget(
    rows: np.ndarray, lengths: np.ndarray, token_budget: int, multiple: int
) -> list[np.ndarray]:
    """Consecutive rows, lengths rising, cut so that rows x padded width stays within the budget."""
    widths = -(-lengths // multiple) * multiple
    batches, start = [], 0
    while start < len(rows):
        # Widths rise, so rows x width does: the first count beyond the budget is found by bisection.
        most = token_budget // int(widths[start]) + 1
        costs = widths[start : start + most] * np.arange(1, min(most, len(rows) - start) + 1)
        count = max(1, int(np.searchsorted(costs, token_budget, side="right")))
        batches.append(rows[start : start + count])
        start += count
    return batches


def even_cut(
    rows_N: np.ndarray, lengths_N: np.ndarray, num_batches: int, multiple: int
) -> list[np.ndarray]:
    """Consecutive rows, lengths rising, in at most so many batches of the least padded size that allows it."""
    longest = -(-int(lengths_N[-1]) // multiple) * multiple
    total = int((-(-lengths_N // multiple) * multiple).sum())
    low, high = -(-total // num_batches) - 1, longest * len(rows_N)
    best = [rows_N]
    for _ in range(HALVINGS):
        budget = (low + high + 1) // 2
        if budget >= high:
            break
        found = cut_by_budget(rows_N, lengths_N, budget, multiple)
        if len(found) > num_batches:
            low = budget
        else:
            best, high = found, budget
    return best


def exact_length_batches(
    lengths_N: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Rows of one length each, `batch_size` at most, every row once: no padding at all.

    What remains of every length is put together with the remains of its neighbours, so that no batch is tiny.
    """
    order = rng.permutation(len(lengths_N))
    order = order[np.argsort(lengths_N[order], kind="stable")]
    edges = np.flatnonzero(np.diff(lengths_N[order])) + 1
    batches: list[np.ndarray] = []
    remains: list[np.ndarray] = []
    for rows in np.split(order, edges):
        whole = len(rows) - len(rows) % batch_size
        batches += np.split(rows[:whole], range(batch_size, whole, batch_size)) if whole else []
        remains.append(rows[whole:])
    rest = np.concatenate(remains) if remains else np.empty(0, np.int64)
    batches += [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]


def padding_share(lengths_N: np.ndarray, batches: list[np.ndarray], multiple: int) -> float:
    """Share of a padded epoch's positions that are padding."""
    padded = sum(
        len(rows) * (-(-int(lengths_N[rows].max()) // multiple) * multiple) for rows in batches
    )
    return 1 - float(sum(lengths_N[rows].sum() for rows in batches)) / padded if padded else 0.0
