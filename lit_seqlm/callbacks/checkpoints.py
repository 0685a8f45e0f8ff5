"""Two checkpoints a run: the best weights, and the state to continue from."""

import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from lit_seqlm.checkpoint import BEST, LAST, load_weights, read_checkpoint
from lit_seqlm.errors import UserError, did_you_mean


class RunCheckpoint(Checkpoint):
    """Keeps ``best.ckpt`` (weights only, after each better validation) and ``last.ckpt`` (everything).

    ``last.ckpt`` is only ever written between two steps of one epoch, never at its end: Lightning's epoch-end
    bookkeeping (schedulers, counters) is then always either wholly before or wholly after it, which is what makes
    a resumed run equal an uninterrupted one bit for bit. The first step of every epoch is such a moment.

    Args:
        folder: where the files go.
        monitor: validation number, lower is better.
        every_seconds: time between two saves within an epoch.
        config: the resolved config, stored as a plain dict.
    """

    def __init__(self, folder: str, monitor: str, every_seconds: float, config: dict[str, Any]):
        self.folder, self.monitor, self.every_seconds, self.config = (
            Path(folder),
            monitor,
            every_seconds,
            config,
        )
        self.best_value = float("inf")
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            return
        first = batch_idx == 0 and trainer.current_epoch > 0
        due = time.monotonic() - self._saved >= self.every_seconds
        if first or due or trainer.received_sigterm:
            pl_module.check_finite()
            trainer.save_checkpoint(self.folder / LAST)
            self._saved = time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            nearest = did_you_mean(self.monitor, trainer.callback_metrics)
            raise UserError(f"monitor={self.monitor}: there is no such number. {nearest}")
        value = float(trainer.callback_metrics[self.monitor])
        if value < self.best_value:
            self.best_value = value
            weights = {
                "state_dict": pl_module.state_dict(),
                "epoch": trainer.current_epoch,
                self.monitor: value,
            }
            trainer.strategy.checkpoint_io.save_checkpoint(
                {**weights, **self._identity(trainer)}, self.folder / BEST
            )

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint.update(self._identity(trainer))

    def _identity(self, trainer: lightning.Trainer) -> dict[str, Any]:
        """What makes a file of weights usable by itself."""
        return {"config": self.config, "tokenizer": trainer.datamodule.tokenizer.state_dict()}  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value = state_dict["best_value"]

    def restore(self, pl_module: Any) -> None:
        """Put the best weights back into the model."""
        pl_module.check_finite()
        if not (self.folder / BEST).exists():
            raise UserError(
                "training ended before its first validation, so there are no best weights: let it run for an epoch"
            )
        checkpoint = read_checkpoint(self.folder / BEST)
        tokenizer = pl_module.trainer.datamodule.tokenizer
        load_weights(pl_module.model, checkpoint, tokenizer, str(self.folder / BEST))
