"""Train a head on an encoder, and the encoder with it, to predict properties."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_seqlm.data.baselines import Baselines
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.targets import Target
from lit_seqlm.objective.classification import Classification
from lit_seqlm.objective.regression import Regression
from lit_seqlm.optim.schedule import Schedule
from lit_seqlm.task.beside import audited, with_baselines
from lit_seqlm.task.property import PropertyTask
from lit_seqlm.task.ranks import step_loss
from lit_seqlm.task.training import Training


class FineTune(Training, PropertyTask):
    """All weights are trained, from those of ``init_from`` or, without one, from scratch.

    Before training, the split's audit is shown; after it, what simple methods reach on the same rows.

    Args:
        baselines: simple models whose numbers stand beside the result.
        optimizer, scheduler, monitor, validate_first: see `Training.learns`.
        model, head, objective, targets, kind, covariates, folder: see `PropertyTask`.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Callable[..., nn.Module],
        objective: Regression | Classification,
        targets: Sequence[Target],
        kind: str,
        covariates: Sequence[str],
        baselines: Baselines,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Schedule,
        monitor: str,
        validate_first: bool,
        folder: str,
    ):
        PropertyTask.__init__(self, model, head, objective, targets, kind, covariates, folder)
        self.baselines = baselines
        self.learns(optimizer, scheduler, monitor, validate_first)

    def prepare(self, trainer: lightning.Trainer, datamodule: Any) -> None:
        self.card = audited(datamodule)
        self.fit_scale(datamodule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return step_loss(self._step(batch, "train")[1])

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        metrics = PropertyTask.evaluate(self, trainer, datamodule)
        return with_baselines(metrics, self.baselines, datamodule, self)
