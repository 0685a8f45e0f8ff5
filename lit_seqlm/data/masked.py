"""Short sequences for masked language models, padded as little as can be."""

# N = sequences, B = sequences of a batch, T = tokens

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import lightning
import numpy as np

from lit_seqlm.data.bucketing import budget_batches, cut_by_budget, padding_share
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.masked_loader import MaskedLoader, Masker
from lit_seqlm.data.masking import Masking, Vocabulary
from lit_seqlm.data.ranks import share
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)


class SequenceSource(Protocol):
    """Three splits of strings."""

    name: str

    def digest(self) -> str: ...

    def fetch(self) -> None: ...

    def sequences(self, split: str, tokenizer: Any) -> list[str]: ...

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]: ...


class MaskedSequences(lightning.LightningDataModule):
    """What all data of masked language models share: how sequences are scored, in batches under a budget.

    `tables` holds a `TokenTable` of every split that is scored; their batches and masks never change.

    Args:
        tokenizer: has the special ids.
        masking: which tokens are to be found again.
        token_budget, eval_token_budget: padded tokens of a batch.
        window: sequences sorted together.
        multiple: widths are rounded up to one of these.
        seed: of batches and masks, with the epoch.
    """

    shares_epochs = True  # among processes
    needs_state = False  # no batch goes on where another ended

    def __init__(
        self,
        tokenizer: Any,
        masking: Masking,
        token_budget: int,
        eval_token_budget: int,
        window: int,
        multiple: int,
        seed: int,
    ):
        super().__init__()
        sizes = {"token_budget": token_budget, "eval_token_budget": eval_token_budget,
                 "window": window, "multiple": multiple}  # fmt: skip
        for key, size in sizes.items():
            at_least_one(key, size)
        self.tokenizer, self.masking = tokenizer, masking
        self.token_budget, self.eval_token_budget = token_budget, eval_token_budget
        self.window, self.multiple, self.seed = window, multiple, seed
        self.tables: dict[str, TokenTable] = {}

    def exact_numbers(self, split: str, nll: float, scored: float) -> dict[str, float]:
        """What follows from a split's mean loss: nothing more."""
        return {}

    @property
    def unknown_id(self) -> int | None:
        return None  # never among the tokens to be found

    @property
    def vocabulary(self) -> Vocabulary:
        special = tuple(self.tokenizer.special_ids)
        ids = self.tokenizer.mask_id, special, self.tokenizer.pad_id
        return Vocabulary(len(self.tokenizer), *ids)

    @property
    def masker(self) -> Masker:
        return Masker(self.masking, self.vocabulary, self.tokenizer.pad_id, self.multiple)

    def val_dataloader(self) -> MaskedLoader:
        return self.exact_dataloader("valid")

    def exact_dataloader(self, split: str) -> MaskedLoader:
        """Every sequence once, by length, under masks that never change."""
        lengths = self.tables[split].lengths
        rows = np.argsort(lengths, kind="stable")
        batches = cut_by_budget(rows, lengths[rows], self.eval_token_budget, self.multiple)
        return self._loader(split, batches, SPLITS.index(split))

    def _loader(self, split: str, batches: list[np.ndarray], seed: int) -> MaskedLoader:
        return MaskedLoader(self.tables[split], share(batches, self.trainer), self.masker, seed)


class MaskedData(MaskedSequences):
    """Sequences sorted by length within windows, cut into batches under a budget of tokens, masked on the fly.

    `tables` holds a `TokenTable` for each of train, valid and test. Every epoch draws new batches and new masks from
    (seed, epoch); those of validation and test are always the same.

    Args:
        source: where the strings come from.
        tokenizer: built on the training split unless it already holds a vocabulary.
        masking: which tokens are to be found again.
        token_budget, eval_token_budget: padded tokens of a batch, at most.
        window: sequences sorted together.
        multiple: widths are rounded up to one of these.
        min_len, max_len: tokens of a sequence, without its begin and end; others are counted and left out.
        seed: of batches and masks, with the epoch.

    Raises:
        UserError: for sizes that cannot be; in `setup`, for a split that has no sequence left.
    """

    def __init__(
        self,
        source: SequenceSource,
        tokenizer: Any,
        masking: Masking,
        token_budget: int,
        eval_token_budget: int,
        window: int,
        multiple: int,
        min_len: int,
        max_len: int,
        seed: int,
    ):
        super().__init__(
            tokenizer, masking, token_budget, eval_token_budget, window, multiple, seed
        )
        at_least_one("min_len", min_len)
        if max_len < min_len:
            raise UserError(f"data.max_len={max_len}: it must be at least data.min_len, {min_len}.")
        self.source, self.min_len, self.max_len = source, min_len, max_len
        self.num_dropped: dict[str, int] = {}

    def fingerprint(self) -> str:
        """What tells this corpus from another under the same name; part of a run's identity."""
        return self.source.digest()

    def rows(self, path: str, column: str | None) -> Iterator[InputRow]:
        """A file of other sequences, row by row; its splits need not be there."""
        return self.source.rows(path, column, self.tokenizer)

    def prepare_data(self) -> None:
        self.source.fetch()

    def setup(self, stage: str | None = None) -> None:
        """Read and encode the three splits; a second call does nothing."""
        if self.tables:
            return
        if not len(self.tokenizer):
            self.tokenizer.fit(self.tokenizer.count(self.source.sequences("train", self.tokenizer)))
        self.tables = {split: self._encode(split) for split in SPLITS}
        log.info(
            "%s: %s sequences of %.1f tokens, vocabulary %s",
            self.source.name,
            " / ".join(f"{len(table):,}" for table in self.tables.values()),
            self.tables["train"].lengths.mean(),
            f"{len(self.tokenizer):,}",
        )

    def _encode(self, split: str) -> TokenTable:
        strings = self.source.sequences(split, self.tokenizer)
        problems = self.tokenizer.problems(strings)
        table = self.tokenizer.encode([s for s, p in zip(strings, problems, strict=True) if not p])
        table = self._fitted(table, split)
        inner = table.lengths - self.tokenizer.num_ends
        keep = np.flatnonzero((inner >= self.min_len) & (inner <= self.max_len))
        reasons = Counter(problem.partition(":")[0] for problem in problems if problem)
        reasons["too short"] = int((inner < self.min_len).sum())
        reasons["too long"] = int((inner > self.max_len).sum())
        self.num_dropped[split] = len(strings) - len(keep)
        if self.num_dropped[split]:
            told = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
            log.warning(
                "%s: %d of %d sequences of %s are left out: %s (accepted: %d to %d tokens)", self.source.name,
                self.num_dropped[split], len(strings), split, told, self.min_len, self.max_len,
            )  # fmt: skip
        if not len(keep):
            raise UserError(
                f"data={self.source.name}: no sequence of {split} has {self.min_len} to {self.max_len} tokens."
            )
        return table if len(keep) == len(table) else table.select(keep)

    def _fitted(self, table: TokenTable, split: str) -> TokenTable:
        """What is done about sequences that are over long before they are left out: nothing."""
        return table

    def train_dataloader(self) -> MaskedLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng([self.seed, epoch])
        lengths = self.tables["train"].lengths
        batches = budget_batches(lengths, self.token_budget, self.window, rng, self.multiple)
        if epoch == 0:
            waste = padding_share(lengths, batches, self.multiple)
            log.info("%d batches an epoch, %.1f %% padding", len(batches), 100 * waste)
        return self._loader("train", batches, int(rng.integers(2**31)))
