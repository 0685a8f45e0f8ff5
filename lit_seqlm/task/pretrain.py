"""Train a language model, keep the best weights by validation, score them exactly."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import lightning
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_seqlm.callbacks.checkpoints import RunCheckpoint
from lit_seqlm.checkpoint import random_state, set_random_state
from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import UserError
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.optim.ntasgd import NTASGD
from lit_seqlm.optim.schedule import Schedule
from lit_seqlm.penalty.none import NoPenalty
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.base import SequenceTask, log

CHECK_EVERY = 10  # steps between looks at whether the loss is still finite


class Pretrain(SequenceTask):
    """Language-model training with carried state, scaled segments, weight averaging and exact resume.

    Args:
        optimizer: called with the parameters.
        scheduler: when and how the learning rate moves.
        monitor: which validation number picks the best weights; lower is better.
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
    ):
        super().__init__(model, objective, regularizer, unknown_id)
        self.penalty, self.make_optimizer, self.scheduler = penalty, optimizer, scheduler
        self.monitor = monitor
        self._resumed: dict[str, Any] = {}
        self._lr_scale = 1.0

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        """Train from the beginning or from `last`, then evaluate the best weights."""
        best = trainer.checkpoint_callback
        if not isinstance(best, RunCheckpoint):
            raise UserError(
                "this callbacks= keeps no best weights to evaluate. Say callbacks=default."
            )
        trainer.fit(
            self, datamodule=datamodule, ckpt_path=last, weights_only=True if last else None
        )
        self.train_seconds = time.monotonic() - self.started
        best.restore(self)
        selection = {f"best/{self.monitor.replace('/', '_')}": best.best_value}
        return {**self.evaluate(trainer, datamodule), **selection}

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.make_optimizer(self.parameters())
        self.scheduler.start(optimizer)  # and stepped here: Lightning skips an epoch resumed midway
        return optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.regularizer.set_step(self.global_step)
        output, loss = self._step(batch, "train")
        if batch_idx % CHECK_EVERY == 0:
            self.check_finite()
        return loss.mean + self.penalty(output)

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

    def on_train_start(self) -> None:
        self.started = time.monotonic()
        if self._resumed:
            set_random_state(self._resumed["rng"])
            on_device = move_data_to_device(self._resumed, self.device)
            self.states["train"] = on_device["state"]
            for name, value in on_device["metric"].items():
                setattr(self._metric("train"), name, value)
            self.scheduler.load_state_dict(self._resumed["schedule"])
            self._resumed = {}

    def on_train_epoch_end(self) -> None:
        self.check_finite()
        self.log_dict(self._collect("train"))
        self.scheduler.after_epoch(float(self.trainer.callback_metrics.get(self.monitor, math.nan)))

    def on_validation_start(self) -> None:
        self._swap_average()

    def on_validation_epoch_end(self) -> None:
        values = self._collect("val")
        self.log_dict(values)
        optimizer = self._averaging_optimizer()
        if optimizer is not None and optimizer.observe(float(values[self.monitor])):
            log.info(
                "epoch %d: from here on the weights are averaged (NT-ASGD)", self.current_epoch + 1
            )

    def on_validation_end(self) -> None:
        self._swap_average()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        metric = self._metric("train")
        checkpoint["sequence"] = {
            "rng": random_state(),
            "state": self.states.get("train"),
            "schedule": self.scheduler.state_dict(),
            "metric": {name: getattr(metric, name).clone() for name in metric._defaults},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint["sequence"]

    def _averaging_optimizer(self) -> NTASGD | None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        return optimizer if isinstance(optimizer, NTASGD) else None

    def _swap_average(self) -> None:
        optimizer = self._averaging_optimizer()
        if optimizer is not None:
            optimizer.swap_average()
