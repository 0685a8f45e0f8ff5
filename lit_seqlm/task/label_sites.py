"""Train a head, and the trunk below it, to tell the classes of residues, of pairs of them, or of whole chains."""

# B = sequences, T = tokens, C = classes

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_seqlm.checkpoint import load_weights
from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import UserError
from lit_seqlm.model.site_model import SiteModel
from lit_seqlm.objective.classes import SiteClasses, far_pairs
from lit_seqlm.objective.loss import Loss
from lit_seqlm.optim.schedule import Schedule
from lit_seqlm.task.context import warn_of_chance
from lit_seqlm.task.limits import scored_in_part
from lit_seqlm.task.ranks import step_loss
from lit_seqlm.task.site_beside import site_card, with_baseline
from lit_seqlm.task.site_scores import SiteLoss, SiteScores
from lit_seqlm.task.states import TokenStates, token_states
from lit_seqlm.task.training import Training

TRUNKS = ("trained", "frozen")


class LabelSites(Training):
    """Weights of the trunk come from ``init_from`` or, without one, from chance.

    After training, the best weights are scored on validation and on every named test, ``NAME/...``; the first
    one is also called ``test/...``. ``error`` is one minus the headline measure.

    Args:
        model: an encoder: it has a `trunk`.
        head: called with `hidden_size` and `num_outputs`.
        objective: compares logits with classes.
        site: what the labels are of: ``residue``, ``pair`` or ``chain``.
        classes: their names.
        measure: what the share of right answers is called.
        tests: names of the splits to test on.
        trunk: ``trained`` with the head; ``frozen``: its states are computed once and kept.
        float32_mb: frozen states of a split up to this size are kept as float32, larger ones as float16.
        optimizer, scheduler, monitor, validate_first: see `Training.learns`.
        folder: of the run: predictions are kept in it.
    """

    inherits = ("model",)
    needs_origin = False  # without one, all is trained from scratch
    headline = "test/error"
    told: ClassVar = {"train/loss": "train loss", "val/loss": "val loss", "val/error": "val error"}

    def __init__(
        self,
        model: nn.Module,
        head: Callable[..., nn.Module],
        objective: SiteClasses,
        site: str,
        classes: Sequence[str],
        measure: str,
        tests: Sequence[str],
        trunk: str,
        float32_mb: int,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Schedule,
        monitor: str,
        validate_first: bool,
        folder: str,
    ):
        if not isinstance(objective, SiteClasses):
            raise UserError(f"these labels are classes of {site}s. Say objective=classes.")
        if trunk not in TRUNKS:
            raise UserError(f"task.trunk={trunk}: choose {' or '.join(TRUNKS)}.")
        super().__init__(
            SiteModel.on(model, head, site, len(classes), frozen=trunk == "frozen"),
            {stage: SiteLoss() for stage in ("train", "val", *tests)},
        )
        self.exact = (("val", "valid"), *((name, name) for name in tests))
        self.objective, self.float32_mb, self.folder = objective, float32_mb, Path(folder)
        self.scores = SiteScores(site, classes, measure, dict(self.exact))
        self.states_of: dict[str, TokenStates] = {}
        self.separation = 0  # of the pairs that are learnt
        self.learns(optimizer, scheduler, monitor, validate_first)

    def begin(self, origin: dict[str, Any], tokenizer: Any, what: str) -> None:
        """Take another run's trunk; its head was made for other things and stays there."""
        warn_of_chance(origin["config"]["model"], what)
        load_weights(self.model, origin, tokenizer, what, only="trunk.")

    def prepare(self, trainer: lightning.Trainer, datamodule: Any) -> None:
        self.separation = getattr(datamodule, "train_separation", 0)
        self.scores.begin(datamodule, self.separation)
        self.card |= getattr(datamodule, "source_card", {}) | site_card(self.scores)
        if not self.model.frozen:
            return
        if trainer.world_size > 1:
            raise UserError(
                "task.trunk=frozen keeps its states in one process. Say trainer.devices=1."
            )
        device = trainer.strategy.root_device
        self.to(device).eval()
        with trainer.precision_plugin.forward_context():
            for stage, split in (("train", "train"), ("val", "valid")):
                self.states_of[stage] = token_states(
                    self.model.trunk, datamodule, split, device, self.float32_mb
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return step_loss(self._step(batch, "train")[1])

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        numbers = self._test(trainer, datamodule)
        self.card |= scored_in_part(trainer, datamodule, [split for _, split in self.exact])
        self.scores.write(self.folder, writes=trainer.is_global_zero)
        stages = tuple(f"{stage}/" for stage, _ in self.exact)
        kept = {name: value for name, value in numbers.items() if name.startswith(stages)}
        return with_baseline(kept, self.scores, datamodule, self.device)

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Loss]:
        logits = self._logits(batch, stage)
        assert batch.sites is not None
        loss = self.objective(logits, far_pairs(batch.sites, self.separation))
        self._metric(stage).update(loss)
        if stage == "train":
            self.num_tokens += batch.num_tokens
        else:
            self.scores.update(stage, logits, batch, keep=self.trainer.testing)
        return logits, loss

    def _logits(self, batch: Batch, stage: str) -> Tensor:
        if (known := self.states_of.get(stage)) is None:
            return self.model(batch.tokens_BT, batch.valid_BT)
        assert batch.rows_B is not None
        hidden_BTD = known.of(batch.rows_B, batch.tokens_BT.size(1), self.device)
        return self.model.logits(hidden_BTD, batch.valid_BT)

    def _collect(self, stage: str) -> dict[str, Tensor]:
        values = super()._collect(stage)
        if stage == "train":
            return values
        numbers = self.scores.collect(stage)
        return values | {
            f"{stage}/{name}": torch.tensor(value, dtype=torch.float64)
            for name, value in numbers.items()
        }
