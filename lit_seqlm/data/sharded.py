"""Masked sequences streamed from shards: a corpus of any size in the memory of one window."""

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from lit_seqlm.data.bucketing import even_cut
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.masked import MaskedSequences
from lit_seqlm.data.masking import Masking
from lit_seqlm.data.molecule_rows import molecule_rows
from lit_seqlm.data.ranks import place
from lit_seqlm.data.shard_loader import ShardLoader
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

ROOM = 1.02  # more batches than the mean length asks for: a window's own mean is another
HELD_OUT = ("valid", "test")


class ShardedSequences(MaskedSequences):
    """A prepared corpus to pretrain on, streamed. Of one held-out split, sequences are validation and test by turns.

    The batches of an epoch hold each sequence once, over all processes. A window's batches are made even, so
    `token_budget` is kept as well as the windows are alike: by far most batches stay below it.

    Args:
        source: the folder that ``experiments/prepare_corpus.py`` wrote.
        tokenizer: takes the corpus's vocabulary.
        window: sequences sorted or packed together; what is held in memory.
        masking, token_budget, eval_token_budget, multiple, seed: see `MaskedSequences`.

    Raises:
        UserError: for sizes that cannot be; in `setup`, for a tokenizer of another vocabulary, and for a
        corpus that has nothing held out.
    """

    source: ShardSource

    @abstractmethod
    def sizes(self, world_size: int, num_windows: int) -> tuple[float, float]:
        """Of a process's window and of a batch, in one unit: from the corpus's lengths, not from its rows."""

    @abstractmethod
    def cut(self, table: TokenTable, num_batches: int, rng: np.random.Generator) -> list[Any]:
        """A window's batches, as even as can be."""

    def fingerprint(self) -> str:
        return self.source.digest()

    def rows(self, path: str, column: str | None) -> Iterator[InputRow]:
        """Sequences of any other file, as the corpus was made."""
        if self.source.kind == "molecule":
            return molecule_rows(path, column, self.tokenizer.isomeric)
        from lit_seqlm.data.proteins.rows import protein_rows

        return protein_rows(path, column, self.tokenizer)

    def setup(self, stage: str | None = None) -> None:
        """Read what is held out; a second call does nothing."""
        if self.tables:
            return
        self._take_vocabulary()
        tables = self._held_out()
        for split, table in tables.items():
            if not len(table):
                raise UserError(
                    f"data={self.source.name}: nothing is held out for {split}: it is needed to validate on and to "
                    "test. Prepare the corpus with a larger --holdout."
                )
        self.tables = tables
        number = self.source.num_sequences("train")
        log.info(
            "%s: %s sequences of %.1f tokens, %s held out, vocabulary %s",
            self.source.name,
            f"{number:,}",
            self.source.num_tokens("train") / number,
            f"{sum(map(len, tables.values())):,}",
            f"{len(self.tokenizer):,}",
        )

    def train_dataloader(self) -> ShardLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rank, size = place(self.trainer)
        num_windows, num_cut = self.plan(size)
        if epoch == 0:
            log.info("%d batches an epoch and process", num_windows * num_cut)
        stream = self.source.open("train", self.seed, epoch, rank, size)
        if len(stream) < num_windows:
            raise UserError(
                f"data={self.source.name}: {self.source.num_sequences('train'):,} sequences are too few for "
                f"{size} processes and windows of {self.window}. Use fewer trainer.devices."
            )
        rng = np.random.default_rng([self.seed, epoch, rank])
        return ShardLoader(
            stream,
            self.source.block,
            num_windows,
            num_cut,
            self.cut,
            self.masker,
            int(rng.integers(2**31)),
            size,
        )

    def plan(self, world_size: int) -> tuple[int, int]:
        """(windows of a process's epoch, batches of each)."""
        num_own = self.source.num_sequences("train") / world_size
        num_windows = max(1, round(num_own / self.window))
        of_window, of_batch = self.sizes(world_size, num_windows)
        return num_windows, math.ceil(ROOM * of_window / of_batch)

    def _held_out(self) -> dict[str, TokenTable]:
        opened = {
            split: list(self.source.open(split, self.seed, 0, 0, 1))
            for split in HELD_OUT
            if split in self.source.splits
        }
        if "test" not in opened:
            opened = {"valid": opened["valid"][::2], "test": opened["valid"][1::2]}
        return {split: TokenTable.of(rows) for split, rows in opened.items()}

    def _take_vocabulary(self) -> None:
        """Ids are in the shards already: the tokenizer has to mean the same by them."""
        name, theirs = self.source.name, self.source.tokenizer_state()
        if self.tokenizer.state_dict().keys() != theirs.keys():
            raise UserError(
                f"data={name}: the corpus is of {self.source.kind}s. Say data={self.source.kind}_shards."
            )
        if not len(self.tokenizer):
            self.tokenizer.load_state_dict(theirs)
        ours = self.tokenizer.state_dict()
        for key in theirs.keys() - {"vocabulary"}:
            if ours[key] != theirs[key]:
                raise UserError(
                    f"data={name}: the corpus has {key}={theirs[key]}, the tokenizer {ours[key]}. Say "
                    f"data.tokenizer.{key}={theirs[key]}, or prepare it again with another --{key}."
                )
        if ours["vocabulary"] != theirs["vocabulary"]:
            raise UserError(
                f"data={name}: the corpus was made with another vocabulary ({len(theirs['vocabulary']):,} tokens) than "
                f"the tokenizer's ({len(self.tokenizer):,}). Prepare it again with --vocabulary, or say "
                "data.tokenizer.vocabulary=null."
            )


class ShardedMaskedData(ShardedSequences):
    """Batches of sequences of like length, padded; see `ShardedSequences` for the arguments."""

    def __init__(
        self,
        source: ShardSource,
        tokenizer: Any,
        masking: Masking,
        token_budget: int,
        eval_token_budget: int,
        window: int,
        multiple: int,
        seed: int,
    ):
        super().__init__(
            tokenizer, masking, token_budget, eval_token_budget, window, multiple, seed
        )
        self.source = source

    def sizes(self, world_size: int, num_windows: int) -> tuple[float, float]:
        counts = self.source.lengths("train").items()
        padded = sum(-(-n // self.multiple) * self.multiple * count for n, count in counts)
        tokens = padded / world_size / num_windows
        # Whole rows: a budget is not quite used.
        width = padded / self.source.num_sequences("train")
        return tokens, max(self.token_budget - width, width)

    def cut(self, table: TokenTable, num_batches: int, rng: np.random.Generator) -> list[Any]:
        lengths_N = table.lengths
        rows_N = np.argsort(lengths_N, kind="stable")
        return even_cut(rows_N, lengths_N[rows_N], num_batches, self.multiple)
