"""Predictions and labels of a whole split, row by row."""

# B, N = sequences, K = targets

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_seqlm.errors import DivergedError


class Named(Protocol):
    """What a metric asks of a target: its name."""

    @property
    def name(self) -> str: ...


class LabelMetric(Metric):
    """Collects a split in float64; what is made of it is a subclass's `numbers`.

    Rows are known by their number, so one that two processes were given, as samplers do to make
    even shares, counts once, and the order in which rows come does not matter.

    Args:
        targets: in the order of the columns.
    """

    full_state_update = False
    predictions: list[Tensor]
    labels: list[Tensor]
    rows: list[Tensor]

    def __init__(self, targets: Sequence[Named]):
        super().__init__()
        self.names = [target.name for target in targets]
        for state in ("predictions", "labels", "rows"):
            self.add_state(state, [], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)

    def update(self, prediction_BK: Tensor, labels_BK: Tensor, rows_B: Tensor) -> None:
        """Add a batch, in the data's own units; a label that is NaN is missing."""
        num_targets = len(self.names)
        assert prediction_BK.shape == labels_BK.shape == (len(rows_B), num_targets)
        self.predictions.append(prediction_BK.detach().double())
        self.labels.append(labels_BK.detach().double())
        self.rows.append(rows_B.detach())

    def collected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predictions (N, K), labels (N, K) and row numbers (N,), by row number."""
        if not len(self.rows):
            empty = np.empty((0, len(self.names)))
            return empty, empty, np.empty(0, np.int64)
        prediction_NK, label_NK, row_N = self.by_row(self.predictions, self.labels, self.rows)
        return prediction_NK, label_NK, row_N

    def by_row(self, *states: Any) -> list[np.ndarray]:
        """Some of the collected states, each row once, by row number."""
        first_N = np.unique(joined(self.rows), return_index=True)[1]
        return [joined(state)[first_N] for state in states]

    def compute(self) -> dict[str, float]:
        """Numbers by name; empty where nothing has been scored.

        Raises:
            DivergedError: a prediction is not finite.
        """
        prediction_NK, label_NK, row_N = self.collected()
        if not len(row_N):
            return {}
        bad_NK = ~np.isfinite(prediction_NK)
        if bad_NK.any():
            row, target = np.argwhere(bad_NK)[0]
            raise DivergedError(
                f"{int(bad_NK.sum())} of {bad_NK.size} predictions are not finite, first that of "
                f"{self.names[target]} in row {row_N[row]}. Try a smaller optimizer.lr, or "
                "trainer.precision=32-true."
            )
        return self.numbers(prediction_NK, label_NK)

    def numbers(self, prediction_NK: np.ndarray, label_NK: np.ndarray) -> dict[str, float]:
        """What a subclass makes of a split; predictions are finite, labels may be NaN."""
        raise NotImplementedError


def mean_of(values: dict[str, float], measure: str, names: list[str]) -> dict[str, float]:
    """{measure: mean over the targets that have it}, empty where none has."""
    found = [values[f"{measure}/{name}"] for name in names if f"{measure}/{name}" in values]
    return {measure: float(np.mean(found))} if found else {}


def joined(state: Any) -> np.ndarray:
    """A state's batches as one array; after synchronisation it is one tensor already."""
    tensor = state if isinstance(state, Tensor) else torch.cat(state)
    return tensor.cpu().numpy()
