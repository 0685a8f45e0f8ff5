"""What is predicted of validation and test, in the units of the data: numbers, and the file it is kept in."""

# K = targets

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.targets import Target
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.metrics.classification import ClassificationMetrics
from lit_seqlm.metrics.regression import RegressionMetrics
from lit_seqlm.metrics.uncertainty import UncertaintyMetrics
from lit_seqlm.task.base import EXACT_SPLITS, SPLITS


class Scores(nn.Module):
    """Metrics of the labels and, where a head has sigmas, of these.

    Args:
        targets: what is predicted.
        kind: ``regression`` or ``classification``.
        has_sigma: whether predictions tell their own standard deviation.
    """

    def __init__(self, targets: Sequence[Target], kind: str, has_sigma: bool):
        super().__init__()
        make = RegressionMetrics if kind == "regression" else ClassificationMetrics
        self.names = [target.name for target in targets]
        self.labels = nn.ModuleDict({stage: make(targets) for stage in EXACT_SPLITS})
        told = EXACT_SPLITS if has_sigma else ()
        self.sigmas = nn.ModuleDict({stage: UncertaintyMetrics(targets) for stage in told})

    def update(self, stage: str, prediction: Prediction, scale: Any, batch: Batch) -> None:
        raw_BK = scale.to_raw(prediction.mean_BK, batch.covariates_BC)
        for metric in self._of(stage, self.labels):
            metric.update(raw_BK, batch.labels_BK, batch.rows_B)
        for metric in self._of(stage, self.sigmas):
            sigma_BK = scale.spread_to_raw(prediction.sigma)
            metric.update(raw_BK, batch.labels_BK, batch.rows_B, sigma_BK)

    def collect(self, stage: str) -> dict[str, float]:
        """The numbers of a stage, which begins anew."""
        numbers: dict[str, float] = {}
        for metric in (*self._of(stage, self.labels), *self._of(stage, self.sigmas)):
            numbers |= metric.compute()
            metric.reset()
        return numbers

    def write(self, folder: Path, writes: bool) -> None:
        """``predictions.npz``: of both splits predictions, labels, row numbers and sigmas of all processes.

        Args:
            writes: true in one process; all must call this.
        """
        kept: dict[str, Any] = {}
        for stage, split in zip(EXACT_SPLITS, SPLITS, strict=True):
            for metric in self._of(stage, self.labels):
                with metric.sync_context():
                    found = metric.collected()
                names = ("predictions", "labels", "rows")
                kept |= {f"{split}_{n}": of for n, of in zip(names, found, strict=True)}
            for metric in self._of(stage, self.sigmas):
                with metric.sync_context():
                    (kept[f"{split}_sigmas"],) = metric.by_row(metric.sigmas)
        if writes:
            partial = folder / f".predictions.{os.getpid()}.npz"
            np.savez(partial, targets=np.array(self.names), **kept)
            partial.replace(folder / "predictions.npz")

    @staticmethod
    def _of(stage: str, metrics: nn.ModuleDict) -> list[Any]:
        return [metrics[stage]] if stage in metrics else []
