"""What all tasks share: one step for every stage, exact metrics, what an epoch stopped midway needs to go on."""

import logging
from typing import Any, ClassVar

import lightning
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn

from lit_seqlm.checkpoint import load_weights, random_state, set_random_state
from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import DivergedError, UserError, did_you_mean
from lit_seqlm.objective.loss import Loss
from lit_seqlm.process import NUM_KERNELS
from lit_seqlm.task.ranks import num_ranks, total
from lit_seqlm.task.stopwatch import Stopwatch

log = logging.getLogger(__name__)

HOPELESS = 700.0  # mean loss: of nats, exp of more is infinite
EXACT_SPLITS = ("val", "test")  # the dataloaders of the exact evaluation, in this order
SPLITS = ("valid", "test")  # the same, as the data calls them


class Task(lightning.LightningModule):
    """A model, what it is asked, and the numbers that come out.

    Subclasses give `_step` and `evaluate`, and metrics with `compute`, `reset`, `mean_loss` and `monitored` names.

    Args:
        metrics: for each of train, val and test.
    """

    inherits: tuple[str, ...] = ()  # config groups taken from the run that init_from names
    needs_origin = True  # where it inherits anything: that it cannot do without
    uses_splits = True  # of its data; else these are asked for other things, and need not be there
    num_kernels = NUM_KERNELS  # compiled ones that are kept on a CPU
    headline = "test/ppl"  # the number that a sweep minimises
    told: ClassVar = {"train/ppl": "train ppl", "val/ppl": "val ppl"}  # after each epoch
    # Stages of the exact evaluation, and the split of each.
    exact: tuple[tuple[str, str], ...] = tuple(zip(EXACT_SPLITS, SPLITS, strict=True))

    def __init__(self, model: nn.Module, metrics: dict[str, Any]):
        super().__init__()
        self.model: Any = model
        self.metrics = nn.ModuleDict({f"{stage}_metric": m for stage, m in metrics.items()})
        self.states: dict[str, Any] = {}
        self.num_tokens, self.clock = 0, Stopwatch()  # of training alone
        # How the numbers were made, where that takes more than a config.
        self.card: dict[str, Any] = {}

    @staticmethod
    def stands(card: dict[str, Any]) -> bool:
        """Whether what a finished run made is still there, as its card says."""
        return True

    def begin(self, origin: dict[str, Any], tokenizer: Any, what: str) -> None:
        """Take the weights of another run's checkpoint; `what` is how the user named it."""
        load_weights(self.model, origin, tokenizer, what)

    def configure_model(self) -> None:
        """Called by Lightning before there is an optimizer: where a strategy spreads weights, it does it here."""
        spread = getattr(self.trainer.strategy, "shard", None)
        if spread is not None:
            spread(self.model)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._step(batch, self.exact[dataloader_idx][0])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._collect("val"), prog_bar=False)

    def on_test_epoch_end(self) -> None:
        for stage, _ in self.exact:
            self.log_dict(self._collect(stage))

    def _step(self, batch: Batch, stage: str) -> tuple[Any, Loss]:
        raise NotImplementedError

    def _test(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        """Validation and tests, each read whole and in order; their numbers, named ``val/...`` and ``test/...``."""
        loaders = [datamodule.exact_dataloader(split) for _, split in self.exact]
        trainer.test(self, dataloaders=loaders, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _metric(self, stage: str) -> Any:
        return self.metrics[f"{stage}_metric"]

    def _collect(self, stage: str) -> dict[str, Tensor]:
        metric = self._metric(stage)
        values = {
            f"{stage}/{name}": torch.tensor(value, dtype=torch.float64)
            for name, value in metric.compute().items()
        }
        metric.reset()
        return values

    def unfinished(self) -> dict[str, Any]:
        """What an epoch stopped midway needs to go on: random numbers, carried state, sums so far."""
        metric = self._metric("train")
        return {
            "rng": random_state(),
            "state": self.states.get("train"),
            "metric": {name: getattr(metric, name).clone() for name in metric._defaults},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what `unfinished` gave."""
        set_random_state(saved["rng"])
        on_device = move_data_to_device(saved, self.device)
        self.states["train"] = on_device["state"]
        for name, value in on_device["metric"].items():
            setattr(self._metric("train"), name, value)

    def check_finite(self) -> None:
        """Raise DivergedError if the epoch's mean loss so far is no number, or hopelessly large."""
        own = torch.tensor(self._metric("train").mean_loss(), device=self.device)
        mean = float(total(own)) / num_ranks()  # all processes end, or none
        if not mean < HOPELESS:
            raise DivergedError(
                f"the loss is {mean:.3g} at step {self.global_step}: training diverged. Try a smaller "
                "optimizer.lr or trainer.gradient_clip_val; checkpoints hold the last finite weights."
            )


def known_metric(monitor: str, metric: Any) -> str:
    """The name itself, if it is one of a validation's numbers.

    Raises:
        UserError: with the nearest name.
    """
    names = [f"val/{name}" for name in metric.monitored]
    if monitor not in names:
        raise UserError(
            f"monitor={monitor}: there is no such number. {did_you_mean(monitor, names)}"
        )
    return monitor
