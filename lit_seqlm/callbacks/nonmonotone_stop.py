"""End a fine-tuning round by the rule that NT-ASGD switches by."""

import logging
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from lit_seqlm.optim.ntasgd import nonmonotone

log = logging.getLogger(__name__)


class NonMonotoneStop(Callback):
    """Stop at a validation worse than the best before the last `patience` ones (AWD-LSTM, fine-tuning).

    Args:
        monitor: validation number, lower is better.
        patience: validations the rule looks back over; n in Merity et al. 2018, algorithm 1.
    """

    def __init__(self, monitor: str, patience: int):
        self.monitor, self.patience = monitor, patience
        self.history: list[float] = []

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        value = float(trainer.callback_metrics[self.monitor])
        if nonmonotone(self.history, value, self.patience):
            log.info("epoch %d: validation no longer improves", trainer.current_epoch + 1)
            trainer.should_stop = True
        self.history.append(value)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
