"""Tasks that predict properties of whole sequences, in the units of the data."""

# B = sequences, D = hidden size

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor, nn

from lit_seqlm.checkpoint import load_weights
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.mean_loss import MeanLoss
from lit_seqlm.model.property import PropertyModel
from lit_seqlm.objective.classification import Classification
from lit_seqlm.objective.loss import Loss
from lit_seqlm.objective.regression import Regression
from lit_seqlm.task.base import EXACT_SPLITS, Task
from lit_seqlm.task.context import warn_of_chance
from lit_seqlm.task.scores import Scores

log = logging.getLogger(__name__)

HEADLINES = {"regression": "test/std_mae", "classification": "test/loss"}


class PropertyTask(Task):
    """A trunk, a head on it, and the units of what they predict.

    Args:
        model: an encoder: it has a `trunk`.
        head: called with `hidden_size` and `num_outputs`.
        objective: compares a prediction with scaled labels.
        targets: what is predicted.
        kind: ``regression`` or ``classification``.
        covariates: names of what extensive targets are residualised on.
        folder: of the run: predictions are kept in it.
    """

    inherits = ("model",)
    needs_origin = False  # without one, all is trained from scratch
    told: ClassVar = {
        "train/loss": "train loss",
        "val/loss": "val loss",
        "val/std_mae": "val std-MAE",
        "val/auroc": "val AUROC",
    }

    def __init__(
        self,
        model: nn.Module,
        head: Callable[..., nn.Module],
        objective: Regression | Classification,
        targets: Sequence[Target],
        kind: str,
        covariates: Sequence[str],
        folder: str,
    ):
        _check_kind(objective, kind)
        super().__init__(
            PropertyModel.on(model, head, kind, len(targets), len(covariates)),
            {stage: MeanLoss() for stage in ("train", *EXACT_SPLITS)},
        )
        if kind == "classification" and self.model.head.has_sigma:
            raise UserError(
                "these labels are classes, and the head predicts numbers with a standard deviation. Say head=molformer."
            )
        self.objective, self.targets, self.kind = objective, list(targets), kind
        self.headline, self.folder = HEADLINES[kind], Path(folder)
        self.scores = Scores(self.targets, kind, self.model.head.has_sigma)

    def begin(self, origin: dict[str, Any], tokenizer: Any, what: str) -> None:
        """Take another run's trunk; its head was made for other things and stays there."""
        warn_of_chance(origin["config"]["model"], what)
        load_weights(self.model, origin, tokenizer, what, only="trunk.")

    def fit_scale(self, datamodule: Any) -> None:
        """Mean, deviation and least squares of the labels of the training split alone."""
        table = datamodule.tables["train"]
        self.model.scale.fit(
            torch.from_numpy(table.labels_NK),
            torch.from_numpy(table.covariates_NC),
            [target.extensive for target in self.targets],
            [target.name for target in self.targets],
        )

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        """Score validation and test, each row once, in the units of the data."""
        metrics = self._test(trainer, datamodule)
        return {name: value for name, value in metrics.items() if name.startswith(EXACT_SPLITS)}

    def on_test_epoch_end(self) -> None:
        self.scores.write(self.folder, writes=self.trainer.is_global_zero)
        super().on_test_epoch_end()

    def _step(self, batch: Batch, stage: str) -> tuple[Any, Loss]:
        scale = self.model.scale
        prediction = self.model(batch.tokens_BT, batch.valid_BT)
        wanted_BK = scale.to_scaled(batch.labels_BK, batch.covariates_BC)
        loss = self.objective(prediction, wanted_BK)
        self._metric(stage).update(loss)
        if stage == "train":
            self.num_tokens += batch.num_tokens
        else:
            self.scores.update(stage, prediction, scale, batch)
        return prediction, loss

    def _collect(self, stage: str) -> dict[str, Tensor]:
        values = super()._collect(stage)
        if stage == "train":
            return values
        return values | {
            f"{stage}/{name}": torch.tensor(value, dtype=torch.float64)
            for name, value in self.scores.collect(stage).items()
        }


def _check_kind(objective: Any, kind: str) -> None:
    wanted = {"regression": Regression, "classification": Classification}[kind]
    if not isinstance(objective, wanted):
        raise UserError(f"these labels are for {kind}. Say objective={kind}.")
