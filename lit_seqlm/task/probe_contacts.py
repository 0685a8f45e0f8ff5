"""Contacts from the attention of a frozen model, by a regression on few proteins (Rao et al. 2020)."""

# B = sequences, T = tokens, L = residues of one, F = features of a pair

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn

from lit_seqlm.checkpoint import load_weights
from lit_seqlm.console import shown
from lit_seqlm.data.annotated_table import BEGIN
from lit_seqlm.data.batch import Batch
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.pair_features import attention_of, product_features
from lit_seqlm.model.property import trunk_of
from lit_seqlm.optim.contact_regression import ContactRegression
from lit_seqlm.task.base import Task
from lit_seqlm.task.context import warn_of_chance
from lit_seqlm.task.site_beside import site_card, with_baseline
from lit_seqlm.task.site_scores import SiteScores

FEATURES = ("attention", "product")
SURE = 1e-12  # no probability is nearer to 0 or 1


class ProbeContacts(Task):
    """The weights given by ``init_from``, as they are: what their attention, or their states, tell of contacts.

    Args:
        model: an encoder: it has a `trunk`.
        site, classes, tests: of the data: pairs that touch.
        features: of a pair: ``attention`` of each head, symmetric and corrected; ``product`` of its two states.
        num_proteins: that the regression is fitted to, drawn by `seed` from the training split.
        strength: of the L1 penalty: a larger one sets more weights to zero.
        least_apart: pairs nearer in sequence are not fitted.
        folder: of the run: predictions are kept in it, and the regression's weights.
    """

    inherits = ("model",)
    headline = "test/error"

    def __init__(
        self,
        model: nn.Module,
        site: str,
        classes: Sequence[str],
        tests: Sequence[str],
        features: str,
        num_proteins: int,
        strength: float,
        least_apart: int,
        seed: int,
        folder: str,
    ):
        if site != "pair":
            raise UserError(
                f"task=probe_contacts: these labels are of {site}s. Choose data of contacts, such as data=contacts_pdb."
            )
        if features not in FEATURES:
            raise UserError(f"task.features={features}: choose {' or '.join(FEATURES)}.")
        if num_proteins < 1 or strength <= 0:
            raise UserError(f"task.num_proteins={num_proteins}, strength={strength}: all above 0.")
        super().__init__(model, {})
        self.trunk = trunk_of(model)
        self.exact = (("val", "valid"), *((name, name) for name in tests))
        self.scores = SiteScores(site, classes, "", dict(self.exact))
        self.features, self.num_proteins, self.seed = features, num_proteins, seed
        self.strength, self.least_apart, self.folder = strength, least_apart, Path(folder)

    def begin(self, origin: dict[str, Any], tokenizer: Any, what: str) -> None:
        warn_of_chance(origin["config"]["model"], what)
        load_weights(self.model, origin, tokenizer, what, only="trunk.")

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        if trainer.world_size > 1:
            raise UserError("task=probe_contacts runs on one device: say trainer.devices=1.")
        self.to(trainer.strategy.root_device).eval()
        self.scores.begin(datamodule, max(self.least_apart, datamodule.train_separation))
        self.card |= getattr(datamodule, "source_card", {}) | site_card(self.scores)
        self.clock.start()
        numbers: dict[str, float] = {}
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            found = self._fitted(datamodule)
            for stage, split in self.exact:
                for batch in shown(datamodule.exact_dataloader(split), f"contacts of {split}"):
                    logits = self._logits(found, batch)
                    self.scores.update(stage, logits, batch, keep=True)
                values = self.scores.collect(stage)
                numbers |= {f"{stage}/{name}": value for name, value in values.items()}
        self.clock.stop()
        self.scores.write(self.folder, writes=True)
        np.savez(self.folder / "regression.npz", weight=found.weight_F, bias=found.bias)
        used = float(np.count_nonzero(found.weight_F))
        numbers |= {"probe/features": float(len(found.weight_F)), "probe/used": used}
        return with_baseline(numbers, self.scores, datamodule, torch.device("cpu"))

    def _fitted(self, datamodule: Any) -> ContactRegression:
        """To the drawn proteins, one after the other."""
        split = datamodule.tables["train"]
        if self.num_proteins > len(split):
            raise UserError(
                f"task.num_proteins={self.num_proteins}: the training split has {len(split)}."
            )
        drawn = np.random.default_rng([self.seed, 2]).permutation(len(split))[: self.num_proteins]
        self.card["fitted_to"] = [split.table.names[row] for row in drawn]
        proteins = (
            (
                next(self._of(split.tokens.pad(np.array([row]), 0)[0], None)),
                split.table.labels[row],
            )
            for row in drawn
        )
        return ContactRegression.fit(proteins, self.strength, self.least_apart, self.seed)

    def _logits(self, found: ContactRegression, batch: Batch) -> Tensor:
        """(B, T, T, 2), zero on ends and padding; float64."""
        size = batch.tokens_BT.size(1)
        logits = torch.zeros(len(batch.tokens_BT), size, size, 2, dtype=torch.float64)
        for place, features_LLF in enumerate(self._of(batch.tokens_BT, batch.valid_BT)):
            chance_LL = np.clip(found.predict(features_LLF), SURE, 1 - SURE)
            inner = slice(BEGIN, BEGIN + len(chance_LL))
            logits[place, inner, inner, 1] = torch.from_numpy(np.log(chance_LL / (1 - chance_LL)))
        self.num_tokens += batch.num_tokens
        return logits

    def _of(self, tokens_BT: Tensor, valid_BT: Tensor | None) -> Iterator[np.ndarray]:
        """Features (L, L, F) of each sequence."""
        tokens_BT, valid_BT = move_data_to_device((tokens_BT, valid_BT), self.device)
        widths_B = [tokens_BT.size(1)] * len(tokens_BT)
        tokens_B = widths_B if valid_BT is None else valid_BT.sum(1).tolist()
        lengths = [number - self.scores.num_ends for number in tokens_B]
        if self.features == "attention":
            yield from attention_of(self.trunk, tokens_BT, valid_BT, lengths, BEGIN)
        else:
            states = self.trunk(tokens_BT, valid_BT).float().cpu().numpy()
            for hidden_TD, length in zip(states, lengths, strict=True):
                yield product_features(hidden_TD[BEGIN : BEGIN + length])
