"""Sequences with labels, tokenised, in batches."""

# N = sequences, K = targets

import logging
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np

from lit_seqlm.data.bucketing import budget_batches, exact_length_batches
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_loader import PropertyLoader, TokenisedTable, truncated
from lit_seqlm.data.property_source import (
    Dropped,
    PropertySource,
    PropertyTable,
    report_dropped,
    report_unknown,
)
from lit_seqlm.data.ranks import share
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.data.targets import Target, choose
from lit_seqlm.data.usable import drawn, one_of, too_long
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)


class PropertyData(lightning.LightningDataModule):
    """Three splits of labelled sequences as `Batch`: tokens, labels in raw units, covariates, rows.

    After `setup`, `tables` holds each split's `TokenisedTable`, and `dropped` its rows that are not
    used with their reasons. The order of an epoch's batches is a function of (seed, epoch) alone.

    Args:
        source: where sequences and labels come from (`lit_seqlm.data.property_source`).
        tokenizer: built on the training split unless it already holds a vocabulary.
        target: ``all``, one name, or a list.
        batching: ``exact_length``: `batch_size` sequences of one length, no padding; ``random``:
            any `batch_size`; ``budget``: as many of similar length as `token_budget` takes.
        window: sequences sorted together by ``budget``.
        multiple: a width is rounded up to one of these by ``budget``.
        max_len: tokens without ``<bos>`` and ``<eos>``; null: no limit.
        over_long: what becomes of a longer sequence: ``error``, ``skip`` or ``truncate``.
        num_train: so many of the training split, drawn by `seed`, each smaller draw within the
            larger; null: all.
        augment: ``none``, or ``enumerate``: each epoch writes training sequences another way.

    Raises:
        UserError: for options that cannot be, a target that there is not, a split without rows.
    """

    shares_epochs = True  # among processes

    def __init__(
        self,
        source: PropertySource,
        tokenizer: Any,
        target: str | list[str],
        batching: str,
        batch_size: int,
        token_budget: int,
        window: int,
        multiple: int,
        eval_batch_size: int,
        max_len: int | None,
        over_long: str,
        num_train: int | None,
        augment: str,
        seed: int,
    ):
        super().__init__()
        one_of("batching", batching, ("exact_length", "random", "budget"))
        one_of("over_long", over_long, ("error", "skip", "truncate"))
        _check_augment(augment, source)
        sizes = {"batch_size": batch_size, "token_budget": token_budget, "window": window}
        sizes |= {"multiple": multiple, "eval_batch_size": eval_batch_size}
        sizes |= {"max_len": max_len or 1, "num_train": 1 if num_train is None else num_train}
        for key, size in sizes.items():
            at_least_one(key, size)
        self.source, self.tokenizer, self.kind = source, tokenizer, source.kind
        self.covariates = source.covariates
        self.columns = choose(source.targets, target, f"data={source.name}")
        self.targets: list[Target] = [source.targets[column] for column in self.columns]
        self.batching, self.batch_size, self.token_budget = batching, batch_size, token_budget
        self.window, self.multiple = window, multiple
        self.eval_batch_size, self.max_len, self.over_long = eval_batch_size, max_len, over_long
        self.num_train, self.augment, self.seed = num_train, augment, seed
        self.tables: dict[str, TokenisedTable] = {}
        self.dropped: dict[str, list[Dropped]] = {}
        self.num_unknown: dict[str, int] = {}  # tokens outside the vocabulary, by split

    def fingerprint(self) -> str:
        """What tells this data from another under the same name; part of a run's identity."""
        return self.source.digest()

    def rows(self, path: str, column: str | None) -> Iterator[InputRow]:
        """A file of other sequences, row by row; the splits need not be there."""
        return self.source.rows(path, column, self.tokenizer)

    def covariates_of(self, sequences: list[str]) -> np.ndarray:
        """Of sequences in the form that the tokenizer reads, float64 (N, C)."""
        return self.source.covariates_of(sequences)

    def prepare_data(self) -> None:
        self.source.fetch()

    def setup(self, stage: str | None = None) -> None:
        """Read, check and encode the three splits; a second call does nothing."""
        if self.tables:
            return
        self.tables = {split: self._tokenised(split) for split in SPLITS}
        log.info(
            "%s: %s sequences, targets: %d, vocabulary %s",
            self.source.name,
            " / ".join(f"{len(table):,}" for table in self.tables.values()),
            len(self.targets),
            f"{len(self.tokenizer):,}",
        )

    @property
    def unknown_id(self) -> int | None:
        return self.tokenizer.unknown_id

    def sequences(self, split: str) -> list[str]:
        """As the tokenizer reads them, in the order of the table."""
        self.setup()
        return self.tables[split].sequences

    def train_dataloader(self) -> PropertyLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng([self.seed, epoch])
        table = self.tables["train"]
        if self.augment == "enumerate":
            table = self._rewritten(table, rng)
        lengths = table.tokens.lengths
        if self.batching == "exact_length":
            batches = exact_length_batches(lengths, self.batch_size, rng)
        elif self.batching == "budget":
            batches = budget_batches(lengths, self.token_budget, self.window, rng, self.multiple)
        else:
            order = rng.permutation(len(table))
            batches = np.split(order, range(self.batch_size, len(order), self.batch_size))
        multiple = self.multiple if self.batching == "budget" else 1
        return PropertyLoader(table, share(batches, self.trainer), self.tokenizer.pad_id, multiple)

    def val_dataloader(self) -> PropertyLoader:
        return self.exact_dataloader("valid")

    def exact_dataloader(self, split: str) -> PropertyLoader:
        """The protocol of every reported number: each row once, in the order of length."""
        table = self.tables[split]
        order = np.argsort(table.tokens.lengths, kind="stable")
        batches = np.split(order, range(self.eval_batch_size, len(order), self.eval_batch_size))
        return PropertyLoader(table, share(batches, self.trainer), self.tokenizer.pad_id, 1)

    def _tokenised(self, split: str) -> TokenisedTable:
        where = f"data={self.source.name}, {split}"
        table = self.source.table(split, self.tokenizer)
        table.labels_NK = table.labels_NK[:, self.columns]
        unlabelled = np.flatnonzero(np.isnan(table.labels_NK).all(1))
        table = table.without(dict.fromkeys(unlabelled.tolist(), "no label"))
        if not len(self.tokenizer):
            counts = self.tokenizer.count(table.sequences)
            self.tokenizer.fit(counts, always=counts)
        table = self._readable(table, where)
        if split == "train" and self.num_train is not None:
            table = table.select(drawn(len(table), self.num_train, self.seed))
        report_dropped(where, table.dropped)
        if not len(table):
            raise UserError(f"{where}: no row is left that can be used.")
        tokens = self.tokenizer.encode(table.sequences)
        self.num_unknown[split] = self.tokenizer.num_unknown
        if self.num_unknown[split]:
            report_unknown(where, table, self.tokenizer)
        if self.max_len is not None:
            tokens = truncated(tokens, self.max_len, self.tokenizer.num_ends, where)
        self.dropped[split] = table.dropped
        return TokenisedTable(
            tokens,
            table.sequences,
            table.written,
            table.labels_NK,
            table.covariates_NC,
            table.rows_N,
        )

    def _readable(self, table: PropertyTable, where: str) -> PropertyTable:
        """Without what the tokenizer cannot cut, and without what is over long if that is skipped."""
        reasons: dict[int, str] = {}
        for place, problem in enumerate(self.tokenizer.problems(table.sequences)):
            if problem is not None and problem.startswith("unknown"):
                raise UserError(
                    f"{where}, row {table.rows_N[place]}: {problem}. Choose "
                    "data.tokenizer.unknown=unk to read it all the same."
                )
            if problem is not None:
                reasons[place] = problem
        if self.max_len is not None and self.over_long != "truncate":
            lengths = [
                0 if place in reasons else len(self.tokenizer.split(sequence))
                for place, sequence in enumerate(table.sequences)
            ]
            reasons |= too_long(
                lengths,
                self.max_len,
                self.over_long,
                "tokens",
                lambda place: f"{where}, row {table.rows_N[place]}",
            )
        return table.without(reasons)

    def _rewritten(self, table: TokenisedTable, rng: np.random.Generator) -> TokenisedTable:
        """Each sequence another way; as it is where that has unknown tokens or is over long."""
        seeds = rng.integers(2**31, size=len(table)).tolist()
        found = map(self.source.variant, table.sequences, seeds)
        written = [
            one if self._fits(one) else old for one, old in zip(found, table.sequences, strict=True)
        ]
        tokens = self.tokenizer.encode(written)
        if self.max_len is not None:
            tokens = truncated(tokens, self.max_len, self.tokenizer.num_ends)
        return TokenisedTable(
            tokens, written, table.written, table.labels_NK, table.covariates_NC, table.rows_N
        )

    def _fits(self, sequence: str) -> bool:
        tokens = self.tokenizer.split(sequence)
        is_known = all(token in self.tokenizer.index for token in tokens)
        whole = is_known and "".join(tokens) == sequence
        return whole and len(tokens) <= (self.max_len or len(tokens))


def _check_augment(augment: str, source: PropertySource) -> None:
    one_of("augment", augment, ("none", "enumerate"))
    if augment == "enumerate" and not source.has_variants:
        raise UserError(
            f"data={source.name} data.augment=enumerate: these sequences can be written in one way only. "
            "Say data.augment=none."
        )
