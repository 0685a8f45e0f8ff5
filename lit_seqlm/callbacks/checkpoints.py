"""Two checkpoints a run: the best weights, and the state to continue from."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_seqlm.checkpoint import BEST, LAST, load_weights, read_checkpoint
from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.task.ranks import any_rank


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
        self._stopping = False  # asked to, from outside; looked at between two steps

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Between processes, Lightning's own handler would broadcast from wherever the signal finds it."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: Any) -> None:
        self._stopping = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            return
        first = batch_idx == 0 and trainer.current_epoch > 0
        due = time.monotonic() - self._saved >= self.every_seconds
        stopping = trainer.received_sigterm or self._stopping
        # All processes save or none does: each has a part of what is saved.
        if any_rank(first or due or stopping, pl_module.device):
            pl_module.check_finite()
            trainer.save_checkpoint(self.folder / LAST)
            self._saved = time.monotonic()
        if trainer.world_size > 1 and any_rank(stopping, pl_module.device):
            raise SIGTERMException

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            nearest = did_you_mean(self.monitor, trainer.callback_metrics)
            raise UserError(f"monitor={self.monitor}: there is no such number. {nearest}")
        value = float(trainer.callback_metrics[self.monitor])
        if value < self.best_value:
            self.best_value = value
            said = {"epoch": trainer.current_epoch, self.monitor: value}
            self.keep(trainer, {**said, **self._identity(trainer)})

    def keep(self, trainer: lightning.Trainer, said: dict[str, Any]) -> None:
        """Write the weights as they are now to ``best.ckpt``, with what is said of them."""
        weights = {"state_dict": trainer.strategy.lightning_module_state_dict()}
        if trainer.is_global_zero:
            trainer.strategy.checkpoint_io.save_checkpoint({**weights, **said}, self.folder / BEST)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint.update(self._identity(trainer))

    def _identity(self, trainer: lightning.Trainer) -> dict[str, Any]:
        """What makes a file of weights usable by itself."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        said = {"config": self.config, "tokenizer": data.tokenizer.state_dict()}
        return said | ({"classes": list(data.classes)} if hasattr(data, "classes") else {})

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_value = state_dict["best_value"]

    def restore(self, pl_module: Any) -> None:
        """Put the best weights back into the model."""
        pl_module.check_finite()
        pl_module.trainer.strategy.barrier()
        if not (self.folder / BEST).exists():
            raise UserError(
                "training ended before its first validation, so there are no best weights: let it run for an epoch"
            )
        checkpoint = read_checkpoint(self.folder / BEST)
        tokenizer = pl_module.trainer.datamodule.tokenizer
        load_weights(pl_module.model, checkpoint, tokenizer, str(self.folder / BEST))
