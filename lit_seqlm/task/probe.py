"""A head on a frozen encoder: what its states tell without being changed."""

# N = sequences, D = hidden size, K = targets

import logging
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from lit_seqlm.callbacks.checkpoints import RunCheckpoint
from lit_seqlm.data.baselines import Baselines
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError
from lit_seqlm.head.linear import LinearHead
from lit_seqlm.objective.classification import Classification
from lit_seqlm.objective.regression import Regression
from lit_seqlm.optim.ridge import ridge_path
from lit_seqlm.task.beside import audited, with_baselines
from lit_seqlm.task.best import Best
from lit_seqlm.task.embeddings import embed_split
from lit_seqlm.task.property import PropertyTask

log = logging.getLogger(__name__)


class Probe(PropertyTask):
    """Embeddings are computed once and kept; ``head=linear`` is then ridge in closed form, any other head is trained.

    The strength of the ridge, and the epoch of a trained head, are chosen on validation, by the objective.

    Args:
        strengths: of the ridge that are tried, on features of unit variance, in units of the number of rows.
        epochs, batch_size, lr: of a trained head, by Adam.
        baselines: simple models whose numbers stand beside the result.
        cache_dir: where embeddings are kept, by a digest of weights and sequences; null: nowhere.
        model, head, objective, targets, kind, covariates, folder: see `PropertyTask`.
    """

    needs_origin = True

    def __init__(
        self,
        model: nn.Module,
        head: Callable[..., nn.Module],
        objective: Regression | Classification,
        targets: Sequence[Target],
        kind: str,
        covariates: Sequence[str],
        strengths: Sequence[float],
        epochs: int,
        batch_size: int,
        lr: float,
        baselines: Baselines,
        cache_dir: str | None,
        folder: str,
    ):
        super().__init__(model, head, objective, targets, kind, covariates, folder)
        if self.model.head.pools_by_learning:
            raise UserError(
                f"{type(self.model.head).__name__} learns how to pool, and a probe keeps pooled states: say "
                "head=sequence_tape_torch or head=linear, or task=finetune."
            )
        if not strengths or min(strengths) <= 0:
            raise UserError(f"task.strengths={list(strengths)}: give numbers above 0.")
        if epochs < 1 or batch_size < 1 or lr <= 0:
            raise UserError(f"task.epochs={epochs}, batch_size={batch_size}, lr={lr}: all > 0.")
        self.strengths, self.epochs, self.batch_size, self.lr = strengths, epochs, batch_size, lr
        self.baselines, self.cache_dir = baselines, cache_dir

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        self.card = audited(datamodule)
        self.fit_scale(datamodule)
        device = trainer.strategy.root_device
        self.model.to(device).eval()  # the head learns on the CPU: its work is small
        states = {
            split: embed_split(self.model, datamodule, split, self.cache_dir, device)
            for split in SPLITS
        }
        wanted = {split: self._wanted(datamodule, split) for split in SPLITS}
        self.model.head.cpu()
        if isinstance(self.model.head, LinearHead) and self.kind == "regression":
            chosen = self._solve(states, wanted)
        else:
            chosen = self._train(states, wanted)
        metrics = {**self.evaluate(trainer, datamodule), **chosen}
        kept = trainer.checkpoint_callback
        if isinstance(kept, RunCheckpoint):  # so that it predicts, as a fine-tuned run does
            tokenizer = datamodule.tokenizer.state_dict()
            kept.keep(trainer, {"config": kept.config, "tokenizer": tokenizer})
        return metrics

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        metrics = super().evaluate(trainer, datamodule)
        return with_baselines(metrics, self.baselines, datamodule, self)

    def _wanted(self, datamodule: Any, split: str) -> Tensor:
        table = datamodule.tables[split]
        labels_NK = torch.from_numpy(table.labels_NK)
        return self.model.scale.to_scaled(labels_NK, torch.from_numpy(table.covariates_NC))

    @torch.no_grad()
    def _loss(self, states_ND: Tensor, wanted_NK: Tensor) -> float:
        self.model.head.eval()
        return float(self.objective(self.model.head.from_pooled(states_ND), wanted_NK).mean)

    def _solve(self, states: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
        """Ridge for each strength; the one with the smallest validation loss stays in the head."""
        head, best = self.model.head, Best()
        for strength, weight_KD, bias_K in ridge_path(
            states["train"], wanted["train"], self.strengths
        ):
            head.out.weight.data.copy_(weight_KD)
            head.out.bias.data.copy_(bias_K)
            best.offer(self._loss(states["valid"], wanted["valid"]), strength, head)
        head.load_state_dict(best.kept)
        if best.setting in (min(self.strengths), max(self.strengths)):
            log.warning("ridge strength %g is at the end of task.strengths: try more", best.setting)
        return {"best/val_loss": best.loss, "best/ridge_strength": best.setting}

    def _train(self, states: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
        """Adam on the kept states, by epochs; the one with the smallest validation loss stays."""
        head, best = self.model.head, Best()
        optimizer = torch.optim.Adam(head.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        for epoch in range(self.epochs):
            head.train()
            for rows in torch.randperm(len(states["train"])).split(self.batch_size):
                prediction = head.from_pooled(states["train"][rows])
                loss = self.objective(prediction, wanted["train"][rows]).mean
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
            best.offer(self._loss(states["valid"], wanted["valid"]), epoch + 1, head)
        head.load_state_dict(best.kept)
        return {"best/val_loss": best.loss, "best/epoch": best.setting}
