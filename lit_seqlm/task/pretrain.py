"""Train a language model, keep the best weights by validation, score them exactly."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_seqlm.data.batch import Batch
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.optim.schedule import Schedule
from lit_seqlm.penalty.none import NoPenalty
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.context import check_context
from lit_seqlm.task.ranks import step_loss
from lit_seqlm.task.sequence import SequenceTask
from lit_seqlm.task.training import Training


class Pretrain(Training, SequenceTask):
    """Language-model training: causal with carried state, or masked.

    Args:
        optimizer, scheduler, monitor, validate_first: see `Training.learns`.
        penalty: a cost on activations.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: CausalLM,
        regularizer: NoRegularizer,
        unknown_id: int | None,
        penalty: NoPenalty,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Schedule,
        monitor: str,
        validate_first: bool,
    ):
        SequenceTask.__init__(self, model, objective, regularizer, unknown_id)
        self.penalty = penalty
        self.learns(optimizer, scheduler, monitor, validate_first)

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        return SequenceTask.evaluate(self, trainer, datamodule)

    def prepare(self, trainer: lightning.Trainer, datamodule: Any) -> None:
        check_context(self.model, datamodule)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.regularizer.set_step(self.global_step)
        output, loss = self._step(batch, "train")
        return step_loss(loss) + self.penalty(output)
