"""What is predicted of validation and of the tests, site by site: numbers, and the file it is kept in."""

# B = sequences, T = tokens, L = residues of one, C = classes

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_seqlm.data.annotated_table import BEGIN, UNSCORED, padded_sites
from lit_seqlm.data.batch import Batch
from lit_seqlm.metrics.contact_precision import ContactPrecision
from lit_seqlm.metrics.mean_loss import MeanLoss
from lit_seqlm.metrics.sites import SiteAccuracy
from lit_seqlm.task.ranks import of_all_ranks

CONTACT = 1  # of the two classes of pairs
PAIRS = "p_at_l5_esm_long"  # the measure of contacts whose complement is the error
Kept = dict[int, tuple[np.ndarray, np.ndarray]]  # labels and probabilities, by row


class SiteLoss(MeanLoss):
    """The mean loss; the share of errors beside it is counted by `SiteScores`."""

    monitored: tuple[str, ...] = ("loss", "error")


class SiteScores(nn.Module):
    """Metrics of every split that is scored as a whole.

    Args:
        site: what the labels are of.
        classes: their names.
        measure: what the share of right answers is called; contacts have names of their own.
        splits: the data's name of each stage.
    """

    def __init__(self, site: str, classes: Sequence[str], measure: str, splits: dict[str, str]):
        super().__init__()
        self.site, self.classes, self.splits = site, list(classes), splits
        self.measure = PAIRS if site == "pair" else measure
        self.metrics = nn.ModuleDict()
        self.kept: dict[str, Kept] = {stage: {} for stage in splits}
        self.tables: dict[str, Any] = {}

    def begin(self, datamodule: Any, learnt_from: int) -> None:
        """Know the sequences and their parts, which are there after the data's setup.

        Args:
            learnt_from: pairs nearer than this were not learnt; 0 of other sites.
        """
        self.learnt_from = learnt_from
        self.tables = {stage: datamodule.tables[split] for stage, split in self.splits.items()}
        self.num_ends = datamodule.tokenizer.num_ends
        for stage, split in self.tables.items():
            scopes = list(split.table.scopes) if self.site == "residue" else []
            self.metrics[stage] = (
                ContactPrecision(BEGIN, learnt_from, split.same_P)
                if self.site == "pair"
                else SiteAccuracy(self.classes, self.measure, scopes, split.same_P)
            )

    def update(self, stage: str, logits: Tensor, batch: Batch, keep: bool) -> None:
        """Score a batch; `keep` what is predicted, too, for `write`."""
        assert batch.sites is not None
        assert batch.rows_B is not None
        probability = torch.softmax(logits.detach().double(), -1)
        rows, metric = batch.rows_B.cpu().numpy(), self._metric(stage)
        lengths_B = self.tables[stage].tokens.lengths[rows] - self.num_ends
        if self.site == "pair":
            metric.update(
                probability[..., CONTACT], batch.sites, batch.rows_B, torch.from_numpy(lengths_B)
            )
        else:
            scopes, sequences_B = self._parts(stage, rows, batch.sites)
            metric.update(logits.argmax(-1), batch.sites, batch.rows_B, scopes, sequences_B)
        if keep:
            self._keep(stage, probability, batch.sites, rows, lengths_B)

    def collect(self, stage: str) -> dict[str, float]:
        """The numbers of a stage, which begins anew."""
        metric = self._metric(stage)
        numbers = metric.compute()
        metric.reset()
        if self.measure in numbers:
            numbers["error"] = 1 - numbers[self.measure]
        return numbers

    def write(self, folder: Path, writes: bool) -> None:
        """``predictions.npz``: of each split ``SPLIT_names``, ``_lengths``, ``_labels``, ``_probabilities`` (float16).

        Sites of all sequences stand end to end; of pairs those above the diagonal, row by row, with the
        probability of a contact. Labels below zero are not scored; a row without any is there, too.

        Args:
            writes: true in one process; all must call this.
        """
        arrays: dict[str, Any] = {"classes": np.array(self.classes)}
        for stage, split in self.splits.items():
            mine: dict[str, Any] = {"kept": self.kept[stage]}
            everyones = of_all_ranks(mine)
            found: Kept = {}
            for part in everyones.get("ranks", [everyones]):
                for row, known in part["kept"].items():
                    if row not in found or (known[0] != UNSCORED).any():  # else silenced there
                        found[row] = known
            rows = sorted(found)
            names = self.tables[stage].table.names
            arrays |= {
                f"{split}_names": np.array([names[row] for row in rows]),
                f"{split}_lengths": self.tables[stage].tokens.lengths[rows] - self.num_ends,
                f"{split}_labels": np.concatenate([found[row][0] for row in rows]),
                f"{split}_probabilities": np.concatenate([found[row][1] for row in rows]),
            }
        if writes:
            partial = folder / f".predictions.{os.getpid()}.npz"
            np.savez_compressed(partial, **arrays)
            partial.replace(folder / "predictions.npz")

    def _metric(self, stage: str) -> Any:
        return self.metrics[stage]

    def _parts(self, stage: str, rows: np.ndarray, sites: Tensor) -> Any:
        """Which sites of a batch are in each scope, and the protein of each row."""
        table = self.tables[stage].table
        scopes = {
            name: padded_sites("residue", parts, rows, sites.size(1)).to(sites.device) == 1
            for name, parts in (table.scopes if self.site == "residue" else {}).items()
        }
        return scopes, torch.from_numpy(self.tables[stage].proteins_N[rows]).to(sites.device)

    def _keep(
        self, stage: str, probability: Tensor, sites: Tensor, rows: np.ndarray, lengths: np.ndarray
    ) -> None:
        known, labels = probability.cpu().numpy().astype(np.float16), sites.cpu().numpy()
        for place, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            label, found = labels[place], known[place]
            if self.site == "chain":
                label, found = label[None], found[None]
            else:
                inner = (slice(BEGIN, BEGIN + length),) * (2 if self.site == "pair" else 1)
                label, found = label[inner], found[inner]
            if self.site == "pair":
                upper = np.triu_indices(length, 1)
                label, found = label[upper], found[..., CONTACT][upper]
            self.kept[stage][row] = (label.astype(np.int16), found)
