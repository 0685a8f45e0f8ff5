"""What a trained run looks like: its curves, and the geometry of its output embedding."""

from pathlib import Path
from typing import Any

import lightning
import torch

from lit_seqlm import plots
from lit_seqlm.metrics.geometry import (
    evenly,
    nearest_neighbour_distances,
    singular_values,
    summarise,
)
from lit_seqlm.strategy.sharded import whole


class Geometry(lightning.Callback):
    """After the test, with the best weights: ``geometry/...`` numbers and plots/*.png, in W&B too.

    A model without a matrix of output rows has its curves only. A run that trained nothing has neither.

    Args:
        folder: of the run; plots go to ``plots/`` in it, curves are read from its history.csv.
        num_rows: nearest neighbours are looked up for at most so many rows, spread over the
            vocabulary: the work grows as this times the vocabulary.
    """

    def __init__(self, folder: str, num_rows: int):
        self.folder, self.num_rows = Path(folder), num_rows
        self.title = "/".join(self.folder.parts[-2:])  # name and seed

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        history = self.folder / "history.csv"
        if not history.exists():  # nothing was trained here, so the weights are another run's
            return
        if trainer.is_global_zero:
            curves = plots.curves({self.title: plots.read_history(history)})
            plots.save(curves, "curves", self.folder, trainer.loggers)
        weight_VD = getattr(getattr(pl_module.model, "output_embedding", None), "weight", None)
        if weight_VD is None:
            return
        weight_VD = whole(weight_VD.detach())
        rows_Q = evenly(len(weight_VD), self.num_rows).to(weight_VD.device)
        distances_Q = nearest_neighbour_distances(weight_VD, rows_Q)
        singular = singular_values(weight_VD)
        summary = summarise(distances_Q, weight_VD.detach()[rows_Q].double().norm(dim=1), singular)
        pl_module.log_dict(
            {
                f"geometry/{key}": torch.tensor(value, dtype=torch.float64)
                for key, value in summary.items()
            }
        )
        if trainer.is_global_zero:
            embedding = plots.embedding({self.title: (distances_Q, singular)})
            plots.save(embedding, "embedding", self.folder, trainer.loggers)
