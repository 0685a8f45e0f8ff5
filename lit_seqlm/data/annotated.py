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
    TokenisedAnnotations,
    padded_sites,
)
from lit_seqlm.data.annotated_windows import in_windows
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import budget_batches, cut_by_budget
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_source import report_dropped
from lit_seqlm.data.ranks import Share, share
from lit_seqlm.data.resumable import ShareLoader
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.data.usable import drawn, one_of, too_long
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

OVER_LONG = ("windows", "truncate", "skip", "error")


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
        over_long: what becomes of a longer sequence: ``windows`` that overlap, for classes of residues; ``truncate``
            cuts its labels too; ``skip`` and report; ``error``.
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
        one_of("over_long", over_long, OVER_LONG)
        if over_long == "windows" and source.site != "residue":
            raise UserError(
                f"data.over_long=windows: these labels are of {source.site}s, and windows have labels of residues "
                "only. Say data.over_long=truncate, skip or error."
            )
        sizes = {"budget": budget, "eval_budget": eval_budget, "window": window}
        sizes |= {"max_len": max_len or 1, "num_train": 1 if num_train is None else num_train}
        for key, size in sizes.items():
            at_least_one(key, size)
        self.source, self.tokenizer = source, tokenizer
        self.site, self.measure = source.site, source.measure
        self.tests = source.tests
        self._classes: tuple[str, ...] = ()
        # Of pairs: nearer ones are not learnt, so that no loss counts them.
        self.train_separation: int = getattr(source, "train_separation", 0)
        self.budget, self.eval_budget, self.window = budget, eval_budget, window
        self.max_len, self.over_long = max_len, over_long
        self.num_train, self.seed = num_train, seed
        self.tables: dict[str, TokenisedAnnotations] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of their numbers; a source that finds them in its data reads these."""
        return self._classes or self.source.classes

    @classes.setter
    def classes(self, names: tuple[str, ...]) -> None:
        """Those of a trained model, for which no data need be there."""
        self._classes = names

    @property
    def source_card(self) -> dict[str, Any]:
        """What a reader of the numbers has to know."""
        return self.source.card

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
        counts = [f"{split} {table.num_proteins:,}" for split, table in self.tables.items()]
        told = self.source.name, ", ".join(counts), self.site, len(self.classes)
        log.info("%s: %s, classes of %ss: %d", *told)

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
        if self.site != "pair":  # whose maps are made when they are asked for
            table.check(len(self.classes), where)
        if self.max_len is not None:
            table = self._without_long(table, self.max_len, where)
        if split == "train" and self.num_train is not None:
            table = table.select(drawn(len(table), self.num_train, self.seed))
        report_dropped(where, table.dropped)
        if not len(table):
            raise UserError(f"{where}: no sequence is left that can be used.")
        proteins_N = np.arange(len(table))
        first: dict[str, int] = {}
        same_P = np.array([first.setdefault(one, row) for row, one in enumerate(table.sequences)])
        if self.max_len is not None:
            table, proteins_N = self._fitted(table, self.max_len, where)
        tokens = self.tokenizer.encode(table.sequences)
        return TokenisedAnnotations(tokens, table, proteins_N, same_P)

    def _without_long(self, table: AnnotatedTable, max_len: int, where: str) -> AnnotatedTable:
        """Refuse what is over long, or leave it out, if that is chosen."""
        reasons = too_long(
            list(map(len, table.sequences)),
            max_len,
            self.over_long,
            "residues",
            lambda place: f"{where}, {table.names[place]}",
        )
        return table.without({p: f"{table.names[p]}, {why}" for p, why in reasons.items()})

    def _fitted(
        self, table: AnnotatedTable, max_len: int, where: str
    ) -> tuple[AnnotatedTable, np.ndarray]:
        """Nothing longer than `max_len`, and the protein that each row is of."""
        lengths_N = np.array([len(sequence) for sequence in table.sequences])
        num_long = int((lengths_N > max_len).sum())
        if not num_long:
            return table, np.arange(len(table))
        how = f"{where}: {num_long} of {len(table)} sequences have more than {max_len} residues"
        if self.over_long == "windows":
            found, proteins_N = in_windows(table, max_len)
            log.info("%s: read in windows, each residue scored once", how)
            return found, proteins_N
        lost = int((lengths_N - max_len).clip(0).sum())
        log.warning("%s: cut, and %s residues are not read", how, f"{lost:,}")
        return table.cut(max_len), np.arange(len(table))
