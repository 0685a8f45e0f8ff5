"""Labelled residues, pairs and chains, tokenised, in batches."""

import logging
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch

from lit_seqlm.data.annotated_table import (
    SITES,
    AnnotatedSource,
    AnnotatedTable,
    Picked,
    TokenisedAnnotations,
    padded_sites,
)
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import budget_batches, cut_by_budget
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_loader import truncated
from lit_seqlm.data.property_source import Dropped, report_dropped
from lit_seqlm.data.ranks import Share, share
from lit_seqlm.data.resumable import ShareLoader
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

OVER_LONG = ("truncate", "skip", "error")


class AnnotatedLoader(ShareLoader):
    """Batches of a split by their rows, in the order given."""

    def __init__(self, data: TokenisedAnnotations, site: str, share: Share, pad_id: int):
        super().__init__(share)
        self.data, self.site, self.pad_id = data, site, pad_id

    def batch(self, rows: np.ndarray, number: int) -> Batch:
        tokens_BT, valid_BT = self.data.tokens.pad(rows, self.pad_id)
        sites = padded_sites(self.site, self.data.table.labels, rows, tokens_BT.size(1))
        numbers_B = torch.from_numpy(np.asarray(rows, np.int64))
        return Batch(tokens_BT, tokens_BT, valid_BT=valid_BT, rows_B=numbers_B, sites=sites)


class AnnotatedData(lightning.LightningDataModule):
    """Splits of labelled sequences as `Batch`, whose `sites` are the classes.

    After `setup`, `tables` holds training, ``valid`` and every test. Batches are of like length, under a budget of
    padded sites: tokens, or for pairs the squares of widths. The order of an epoch follows from (seed, epoch).

    Args:
        source: where sequences and classes come from.
        tokenizer: reads residues.
        budget, eval_budget: padded tokens of a batch, or padded pairs of tokens; a longer one is alone.
        window: sequences sorted together.
        max_len: residues; null: no limit.
        over_long: what becomes of a longer sequence: ``truncate`` cuts its labels too; ``skip``; ``error``.
        num_train: so many of the training split, drawn by `seed`; null: all.

    Raises:
        UserError: for options that cannot be, a split without rows, and labels that do not fit their sequence.
    """

    shares_epochs = True  # among processes
    unknown_id: int | None = None

    def __init__(
        self,
        source: AnnotatedSource,
        tokenizer: Any,
        budget: int,
        eval_budget: int,
        window: int,
        max_len: int | None,
        over_long: str,
        num_train: int | None,
        seed: int,
    ):
        super().__init__()
        assert source.site in SITES
        if over_long not in OVER_LONG:
            raise UserError(f"data.over_long={over_long}: choose {', '.join(OVER_LONG)}.")
        sizes = {"budget": budget, "eval_budget": eval_budget, "window": window}
        sizes |= {"max_len": max_len or 1, "num_train": 1 if num_train is None else num_train}
        for key, size in sizes.items():
            at_least_one(key, size)
        self.source, self.tokenizer = source, tokenizer
        self.site, self.classes, self.measure = source.site, source.classes, source.measure
        self.tests, self.source_card = source.tests, source.card
        self.budget, self.eval_budget, self.window = budget, eval_budget, window
        self.max_len, self.over_long = max_len, over_long
        self.num_train, self.seed = num_train, seed
        self.tables: dict[str, TokenisedAnnotations] = {}

    def fingerprint(self) -> str:
        """What tells this data from another under the same name; part of a run's identity."""
        return self.source.digest()

    def rows(self, path: str, column: str | None) -> Iterator[InputRow]:
        """A file of other sequences, row by row; the splits need not be there."""
        return self.source.rows(path, column, self.tokenizer)

    def prepare_data(self) -> None:
        self.source.fetch()

    def setup(self, stage: str | None = None) -> None:
        """Read, check and encode all splits; a second call does nothing."""
        if self.tables:
            return
        splits = ("train", "valid", *self.tests)
        self.tables = {split: self._tokenised(split) for split in splits}
        log.info(
            "%s: %s, classes of %ss: %d", self.source.name,
            ", ".join(f"{split} {len(table):,}" for split, table in self.tables.items()), self.site, len(self.classes),
        )  # fmt: skip

    def train_dataloader(self) -> AnnotatedLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng([self.seed, epoch])
        costs = self._costs("train")
        return self._loader("train", budget_batches(costs, self.budget, self.window, rng, 1))

    def val_dataloader(self) -> AnnotatedLoader:
        return self.exact_dataloader("valid")

    def exact_dataloader(self, split: str) -> AnnotatedLoader:
        """Every sequence once, in the order of length."""
        costs = self._costs(split)
        rows = np.argsort(costs, kind="stable")
        return self._loader(split, cut_by_budget(rows, costs[rows], self.eval_budget, 1))

    def _costs(self, split: str) -> np.ndarray:
        lengths = self.tables[split].tokens.lengths
        return lengths**2 if self.site == "pair" else lengths

    def _loader(self, split: str, batches: list[np.ndarray]) -> AnnotatedLoader:
        own = share(batches, self.trainer)
        return AnnotatedLoader(self.tables[split], self.site, own, self.tokenizer.pad_id)

    def _tokenised(self, split: str) -> TokenisedAnnotations:
        where = f"data={self.source.name}, {split}"
        table = self.source.table(split, self.tokenizer)
        table.check(self.site, len(self.classes), where)
        if self.max_len is not None:
            table = self._fitted(table, where)
        if split == "train" and self.num_train is not None:
            table = self._drawn(table)
        report_dropped(where, table.dropped)
        if not len(table):
            raise UserError(f"{where}: no sequence is left that can be used.")
        tokens = self.tokenizer.encode(table.sequences)
        if self.max_len is not None:
            tokens = truncated(tokens, self.max_len, self.tokenizer.num_ends)
        return TokenisedAnnotations(tokens, table)

    def _fitted(self, table: AnnotatedTable, where: str) -> AnnotatedTable:
        """Nothing longer than `max_len`: cut, left out, or refused."""
        assert self.max_len is not None
        lengths = np.array([len(sequence) for sequence in table.sequences])
        long = np.flatnonzero(lengths > self.max_len)
        if not len(long):
            return table
        if self.over_long == "error":
            raise UserError(
                f"{where}, {table.names[long[0]]}: {lengths[long[0]]} residues, of at most data.max_len="
                f"{self.max_len}. Raise it, or say data.over_long=truncate or skip."
            )
        if self.over_long == "skip":
            reasons = [
                Dropped(int(p) + 1, f"too_long: {table.names[p]}, {lengths[p]} residues")
                for p in long
            ]
            return table.select(np.flatnonzero(lengths <= self.max_len), reasons)
        log.warning(
            "%s: %d of %d sequences are cut after %d residues",
            where,
            len(long),
            len(table),
            self.max_len,
        )
        cut = table.select(np.arange(len(table)))
        cut.sequences = [sequence[: self.max_len] for sequence in cut.sequences]
        cut.labels = Picked(table.labels, np.arange(len(table)), self.max_len)
        cut.scopes = {
            name: [part[: self.max_len] for part in parts] for name, parts in table.scopes.items()
        }
        return cut

    def _drawn(self, table: AnnotatedTable) -> AnnotatedTable:
        assert self.num_train is not None
        if self.num_train > len(table):
            raise UserError(
                f"data.num_train={self.num_train}: the training split has {len(table)} sequences."
            )
        order = np.random.default_rng([self.seed, 1]).permutation(len(table))
        return table.select(np.sort(order[: self.num_train]))
