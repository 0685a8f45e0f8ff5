"""How every task trains: scaled steps, schedules, weight averaging, best weights by validation, exact resume."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import nn
from torch.optim import Optimizer

from lit_seqlm.callbacks.checkpoints import RunCheckpoint
from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import UserError
from lit_seqlm.optim.ntasgd import NTASGD
from lit_seqlm.optim.schedule import Schedule
from lit_seqlm.task.base import Task, known_metric, log
from lit_seqlm.task.ranks import of_all_ranks, of_this_rank, total
from lit_seqlm.task.room import check_room
from lit_seqlm.task.stopwatch import Stopwatch

CHECK_EVERY = 10  # steps between looks at whether the loss is still finite


class Training(Task):
    """The part of a task that learns; a subclass calls `learns` and gives `training_step` and `evaluate`."""

    def learns(
        self,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Schedule,
        monitor: str,
        validate_first: bool,
    ) -> None:
        """How it learns.

        Args:
            optimizer: called with the parameters.
            scheduler: when and how the learning rate moves.
            monitor: which validation number picks the best weights; lower is better.
            validate_first: the weights it starts from are the first candidates for the best, as in the
                fine-tuning rounds of Merity et al. 2018.
        """
        self.make_optimizer, self.scheduler = optimizer, scheduler
        self.monitor = known_metric(monitor, self._metric("val"))
        self.validate_first = validate_first
        self._resumed: dict[str, Any] = {}
        self._lr_scale = 1.0

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        raise NotImplementedError

    def prepare(self, trainer: lightning.Trainer, datamodule: Any) -> None:
        """Whatever must be known or refused before the first step."""

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        """Train from the beginning or from `last`, then evaluate the best weights."""
        best = trainer.checkpoint_callback
        if not isinstance(best, RunCheckpoint):
            raise UserError("callbacks= keeps no best weights to evaluate. Say callbacks=default.")
        check_room(self.model, datamodule)
        self.prepare(trainer, datamodule)
        if self.validate_first and last is None:
            trainer.validate(self, datamodule=datamodule, verbose=False)
            log.info("the weights it starts from: %s %.4f", self.monitor, best.best_value)
        trainer.fit(self, datamodule=datamodule, ckpt_path=last, weights_only=bool(last) or None)
        self.clock.stop()
        self.num_tokens = int(total(torch.tensor(self.num_tokens, device=self.device)))
        best.restore(self)
        log.info("scoring the best weights, %s %.4f", self.monitor, best.best_value)
        selection = {f"best/{self.monitor.replace('/', '_')}": best.best_value}
        return {**self.evaluate(trainer, datamodule), **selection}

    def configure_optimizers(self) -> Optimizer:
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        try:
            optimizer = self.make_optimizer(learning)
        except ValueError as error:  # torch's own words: "Invalid learning rate: -1"
            raise UserError(f"optimizer: {error}") from error
        # and stepped here: Lightning skips an epoch resumed midway
        self.scheduler.start(optimizer, lambda: int(self.trainer.estimated_stepping_batches))
        return optimizer

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """One step at the learning rate that the segment's length asks for; gradients are clipped before."""
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * self._lr_scale
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.scheduler.after_step()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._lr_scale = batch.lr_scale

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if batch_idx % CHECK_EVERY == 0:
            self.check_finite()

    def on_train_start(self) -> None:
        self.clock = Stopwatch()  # what was validated before is no training
        self.clock.start()
        if self._resumed:
            self.restore(self._resumed)
            self.scheduler.load_state_dict(self._resumed["schedule"])
            self._resumed = {}

    def on_train_epoch_end(self) -> None:
        self.check_finite()
        self.log_dict(self._collect("train"))
        self.scheduler.after_epoch(float(self.trainer.callback_metrics.get(self.monitor, math.nan)))

    def on_validation_start(self) -> None:
        self.clock.stop()
        self._swap_average()

    def on_validation_epoch_end(self) -> None:
        values = self._collect("val")
        self.log_dict(values)
        optimizer = self._averaging_optimizer()
        if optimizer is not None and optimizer.observe(float(values[self.monitor])):
            log.info("epoch %d: averaging begins (NT-ASGD)", self.current_epoch + 1)

    def on_validation_end(self) -> None:
        self._swap_average()
        self.clock.start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        mine = {**self.unfinished(), "schedule": self.scheduler.state_dict()}
        checkpoint["sequence"] = of_all_ranks(mine)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = of_this_rank(checkpoint["sequence"])

    def _averaging_optimizer(self) -> NTASGD | None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        return optimizer if isinstance(optimizer, NTASGD) else None

    def _swap_average(self) -> None:
        if (optimizer := self._averaging_optimizer()) is not None:
            optimizer.swap_average()
