"""One row an epoch in history.csv: the curve of a run, the same after any number of interruptions."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from lit_seqlm.results import write_atomically

log = logging.getLogger(__name__)


class History(Checkpoint):
    """A `Checkpoint` because Lightning calls those after the task has logged its epoch, other callbacks before.

    Writes and tells every epoch's numbers. The rows are in the checkpoint, so a resumed curve has no gap.

    Args:
        folder: where history.csv goes.
    """

    def __init__(self, folder: str):
        self.path = Path(folder) / "history.csv"
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._rate = float("nan")
        self._validated = False

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._started, self._validated = time.monotonic(), False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._validated = True

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rate = trainer.optimizers[0].param_groups[0][
            "lr"
        ]  # the schedule moves on at the epoch's end

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if self._validated or not name.startswith("val/")  # an older epoch's is not this one's
        }
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "lr": self._rate,
                **metrics,
            }
        )
        if not trainer.is_global_zero:
            return
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(columns)] + [
            ",".join(str(row.get(c, "")) for c in columns) for row in self.rows
        ]
        write_atomically(self.path, "\n".join(lines) + "\n")
        told = [
            f"{words} {f'{metrics[name]:.4g}' if name in metrics else '-'}"
            for name, words in pl_module.told.items()
            if name in metrics or name.endswith(("loss", "ppl"))
        ]
        log.info(
            "epoch %d/%s: %s, lr %.4g, %.0f s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            ", ".join(told),
            self._rate,
            time.monotonic() - self._started,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
