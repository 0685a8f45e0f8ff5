"""What all tasks on token sequences share: one step, carried state, exact metrics."""

# B = sequences, T = tokens, N = predictions

import logging
import math
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn

from lit_seqlm.checkpoint import random_state, set_random_state
from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import DivergedError
from lit_seqlm.metrics.perplexity import Perplexity
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.objective.loss import Loss
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.context import check_context
from lit_seqlm.task.exact import exact_numbers
from lit_seqlm.task.stopwatch import Stopwatch

log = logging.getLogger(__name__)

HOPELESS = 700.0  # nats per token: exp of more is infinite
EXACT_SPLITS = ("val", "test")  # the dataloaders of the exact evaluation, in this order
SPLITS = ("valid", "test")  # the same, as the data calls them


class SequenceTask(lightning.LightningModule):
    """A model, what it is asked, and the numbers that come out.

    The recurrent state lives here: Lightning 2 has no hook for truncated back-propagation through time.
    """

    inherits: tuple[str, ...] = ()  # config groups taken from the run that init_from names

    def __init__(
        self,
        model: nn.Module,
        objective: CausalLM,
        regularizer: NoRegularizer,
        unknown_id: int | None,
    ):
        super().__init__()
        # An nn.Module with `output_embedding` and `detach`: see lit_seqlm/README.md.
        self.model: Any = model
        self.objective, self.regularizer = objective, regularizer
        self.metrics = nn.ModuleDict(
            {f"{stage}_metric": Perplexity(unknown_id) for stage in ("train", "val", "test")}
        )
        self.states: dict[str, Any] = {}
        self.num_tokens, self.clock = 0, Stopwatch()  # of training alone
        self.card: dict[
            str, Any
        ] = {}  # how the numbers were made, where that takes more than a config

    def forward(self, tokens_BT: Tensor, state: Any = None) -> Any:
        return self.model(tokens_BT, state)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._step(batch, EXACT_SPLITS[dataloader_idx])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._collect("val"), prog_bar=False)

    def on_test_epoch_end(self) -> None:
        for split in EXACT_SPLITS:
            self.log_dict(self._collect(split))

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        """Score validation and test exactly: batch 1, state carried, nothing reset, every prediction counted once."""
        check_context(self.model, datamodule)
        loaders = [datamodule.exact_dataloader(split) for split in SPLITS]
        trainer.test(self, dataloaders=loaders, verbose=False)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for stage, split in zip(EXACT_SPLITS, SPLITS, strict=True):
            values = {"nll": math.nan, "tokens": 0.0} | {
                name.removeprefix(f"{stage}/"): value for name, value in metrics.items()
            }
            metrics.update(exact_numbers(values["nll"], values["tokens"], stage, split, datamodule))
        return metrics

    def _forward(self, batch: Batch, stage: str) -> tuple[Any, Loss]:
        state = self.states.get(stage) if batch.continues else None
        output = self.model(batch.tokens_BT, state)
        self.states[stage] = None if output.state is None else self.model.detach(output.state)
        return output, self.objective(output, self.model.output_embedding, batch, self.regularizer)

    def _step(self, batch: Batch, stage: str) -> tuple[Any, Loss]:
        output, loss = self._forward(batch, stage)
        self._metric(stage).update(loss.clean_nll_N, loss.targets_N)
        self.num_tokens += loss.count if stage == "train" else 0
        return output, loss

    def _metric(self, stage: str) -> Perplexity:
        return self.metrics[f"{stage}_metric"]  # type: ignore[return-value]

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
        """Raise DivergedError if the epoch's mean loss so far is no number, or one whose perplexity is none."""
        metric = self._metric("train")
        mean = float(metric.nll_sum / metric.count.clamp(min=1))
        if not mean < HOPELESS:
            raise DivergedError(
                f"the loss is {mean:.3g} nats per token at step {self.global_step}: training diverged. Try a smaller "
                "optimizer.lr or trainer.gradient_clip_val; checkpoints hold the last finite weights."
            )
