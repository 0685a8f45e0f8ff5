"""Masked sequences streamed from shards: a corpus of any size in the memory of one window."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.masked import MaskedSequences
from lit_seqlm.data.masking import Masking
from lit_seqlm.data.molecule_rows import molecule_rows
from lit_seqlm.data.ranks import place
from lit_seqlm.data.shard_loader import ShardLoader
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles_vocabulary import read_vocabulary

log = logging.getLogger(__name__)

ROOM = 1.02  # more batches than the mean length asks for: a window's own mean is another


class ShardedMaskedData(MaskedSequences):
    """A prepared corpus to pretrain on, streamed; what was held out is validation and test, by turns.

    The batches of an epoch hold each sequence once, over all processes. A window's batches are made
    even, so `token_budget` is kept as well as the windows are alike: by far most batches stay below it.

    Args:
        source: the folder that ``experiments/prepare_corpus.py`` wrote.
        tokenizer: takes the corpus's vocabulary.
        window: sequences sorted together; what is held in memory.
        masking, token_budget, eval_token_budget, multiple, seed: see `MaskedSequences`.

    Raises:
        UserError: for sizes that cannot be; in `setup`, for a tokenizer of another vocabulary, and for a
        corpus that has nothing held out.
    """

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

    def fingerprint(self) -> str:
        return self.source.digest()

    def rows(self, path: str, column: str | None) -> Iterator[InputRow]:
        """Molecules of any other file, as the corpus was made."""
        return molecule_rows(path, column, self.tokenizer.isomeric)

    def setup(self, stage: str | None = None) -> None:
        """Read what is held out; a second call does nothing."""
        if self.tables:
            return
        self._take_vocabulary()
        held_out = list(self.source.open("valid", self.seed, 0, 0, 1))
        if len(held_out) < 2:
            raise UserError(
                f"data={self.source.name}: nothing is held out to validate on. Prepare the corpus "
                "with a larger --holdout."
            )
        self.tables = {
            "valid": TokenTable.of(held_out[::2]),
            "test": TokenTable.of(held_out[1::2]),
        }
        log.info(
            "%s: %s sequences of %.1f tokens, %s held out, vocabulary %s",
            self.source.name,
            f"{self.source.num_molecules('train'):,}",
            self.source.num_tokens("train") / self.source.num_molecules("train"),
            f"{len(held_out):,}",
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
                f"data={self.source.name}: {self.source.num_molecules('train'):,} sequences are too few for "
                f"{size} processes and windows of {self.window}. Use fewer trainer.devices."
            )
        rng = np.random.default_rng([self.seed, epoch, rank])
        return ShardLoader(
            stream,
            self.source.manifest["block"],
            num_windows,
            num_cut,
            self.masker,
            int(rng.integers(2**31)),
            size,
        )

    def plan(self, world_size: int) -> tuple[int, int]:
        """(windows of a process's epoch, batches of each): from the corpus's lengths, not from its rows."""
        num_own = self.source.num_molecules("train") / world_size
        num_windows = max(1, round(num_own / self.window))
        counts = self.source.manifest["splits"]["train"]["lengths"].items()
        padded = sum(-(-int(n) // self.multiple) * self.multiple * count for n, count in counts)
        tokens = padded / world_size / num_windows
        width = padded / self.source.num_molecules(
            "train"
        )  # whole rows: a budget is not quite used
        return num_windows, math.ceil(ROOM * tokens / max(self.token_budget - width, width))

    def _take_vocabulary(self) -> None:
        """Ids are in the shards already: the tokenizer has to mean the same by them."""
        vocabulary = read_vocabulary(self.source.vocabulary)
        if not len(self.tokenizer):
            state = {"vocabulary": vocabulary, "isomeric": self.source.isomeric}
            self.tokenizer.load_state_dict(state)
        if self.tokenizer.isomeric != self.source.isomeric:
            raise UserError(
                f"data={self.source.name}: the corpus has isomeric={self.source.isomeric}, the tokenizer "
                f"{self.tokenizer.isomeric}. Prepare it again {'without' if self.source.isomeric else 'with'} "
                "--isomeric."
            )
        if list(self.tokenizer.vocabulary) != vocabulary:
            raise UserError(
                f"data={self.source.name}: the corpus was made with another vocabulary "
                f"({len(vocabulary):,} tokens) than the tokenizer's ({len(self.tokenizer):,}). Prepare it "
                "again with --vocabulary, or say data.tokenizer.vocabulary=null."
            )
