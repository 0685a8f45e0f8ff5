"""Windows of input rows, tokenised: read once, in constant memory, batched by length, kept in order."""

# N = rows that can be read, B = sequences of a batch, T = tokens

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from torch import Tensor

from lit_seqlm.data.input_rows import LOSSY, TOO_LONG, UNKNOWN, InputRow
from lit_seqlm.data.token_table import TokenTable


@dataclass
class RowWindow:
    """Some consecutive rows.

    Attributes:
        rows: all of them, in the order of the file.
        places_N: of those that can be read, among `rows`.
        tokens: of those, with begin and end.
    """

    rows: list[InputRow]
    places_N: np.ndarray
    tokens: TokenTable

    @property
    def sequences(self) -> list[str]:
        """Of the rows that can be read."""
        return [str(self.rows[place].sequence) for place in self.places_N]

    def batches(self, token_budget: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Indices among the readable rows (B,), and their tokens (B, T).

        All sequences of a batch have one length. Nothing is padded, so no answer can depend on how
        far a neighbour's length pads it, whatever a model makes of padding.
        """
        lengths_N = self.tokens.lengths
        order_N = np.argsort(lengths_N, kind="stable")
        edges = np.flatnonzero(np.diff(lengths_N[order_N])) + 1
        for same in np.split(order_N, edges) if len(order_N) else []:
            size = max(1, token_budget // int(lengths_N[same[0]]))
            for start in range(0, len(same), size):
                rows_B = same[start : start + size]
                yield rows_B, self.tokens.pad(rows_B, pad_id=0)[0]


def read_windows(
    rows: Iterable[InputRow], tokenizer: Any, max_tokens: int | None, size: int
) -> Iterator[RowWindow]:
    """Tokenised windows of `size` rows, of which only one is held.

    Args:
        max_tokens: of a sequence, with its begin and end; null: no limit.
    """
    remaining = iter(rows)
    while window := list(islice(remaining, size)):
        yield tokenised(window, tokenizer, max_tokens)


def shown(windows: Iterable[RowWindow], label: str) -> Iterator[RowWindow]:
    """The same windows, under a count of rows where there is a terminal: how many will come is not known."""
    console = Console(stderr=True)
    looks = SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f} rows")
    bar = Progress(*looks, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(label, total=None)
        for window in windows:
            yield window
            bar.advance(task, len(window.rows))


def tokenised(rows: list[InputRow], tokenizer: Any, max_tokens: int | None) -> RowWindow:
    """A window; a row that cannot be cut into tokens, or is over long, gets its status and stays."""
    rows = list(rows)
    places = [place for place, row in enumerate(rows) if row.sequence is not None]
    problems = tokenizer.problems([rows[place].sequence for place in places])
    for place, problem in zip(places, problems, strict=True):
        if problem is not None:
            status, _, reason = problem.partition(": ")
            rows[place] = rows[place].refused(status or LOSSY, reason)
    places_N = np.array([p for p in places if rows[p].sequence is not None], np.int64)
    tokens = tokenizer.encode([rows[place].sequence for place in places_N])
    if max_tokens is not None:
        lengths_N = tokens.lengths
        for place, length in zip(places_N, lengths_N, strict=True):
            if length > max_tokens:
                ends = tokenizer.num_ends
                why = f"{length - ends} tokens, of at most {max_tokens - ends}"
                rows[place] = rows[place].refused(TOO_LONG, why)
        short_N = np.flatnonzero(lengths_N <= max_tokens)
        if len(short_N) < len(places_N):
            places_N, tokens = places_N[short_N], tokens.select(short_N)
    for place, count in zip(places_N, _unknown(tokens, tokenizer.unknown_id), strict=True):
        if count:
            rows[place] = rows[place].noted(f"{UNKNOWN}: {count}")
    return RowWindow(rows, places_N, tokens)


def _unknown(tokens: TokenTable, unknown_id: int | None) -> np.ndarray:
    """Tokens of each sequence that stand for something outside the vocabulary."""
    if unknown_id is None or not len(tokens):
        return np.zeros(len(tokens), np.int64)
    return np.add.reduceat((tokens.ids == unknown_id).astype(np.int64), tokens.offsets[:-1])
