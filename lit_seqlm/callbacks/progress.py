"""A progress bar where there is a terminal to draw it on."""

import sys
from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar


class TerminalProgress(RichProgressBar):
    """Lightning's rich bar; silent in a log file, where each epoch's line tells how far the run is."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        if not sys.stderr.isatty():
            self.disable()

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the logger's version says nothing to a reader
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        """Counted from one, as in the line that an epoch leaves."""
        words = f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"
        return f"{words:{len(self.validation_description)}}"
