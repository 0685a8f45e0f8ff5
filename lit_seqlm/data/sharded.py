"""Masked sequences streamed from shards: a corpus of any size in the memory of one window."""

# N = sequences of a window, B = blocks of a stream

import logging
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import cut_by_budget
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.masked import MaskedSequences
from lit_seqlm.data.masked_loader import Masker
from lit_seqlm.data.masking import Masking
from lit_seqlm.data.molecule_rows import molecule_rows
from lit_seqlm.data.ranks import place
from lit_seqlm.data.shards import ShardSource, ShardStream
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles_vocabulary import read_vocabulary

log = logging.getLogger(__name__)

ROOM = 1.02  # more batches than the mean length asks for: a window's own mean is another
HALVINGS = 20  # of the interval in which a window's least budget lies


class ShardLoader:
    """One process's batches of one epoch, window by window of its stream.

    A window is sorted by length and cut into `num_cut` batches, the same number for every window and
    every process. So the length of an epoch is known before anything is read, all processes take as
    many steps, and the place in an epoch is one number. Everything follows from (seed, epoch,
    process): a loader that loads a place goes to the window's begin in the stream, and on from there.

    Args:
        stream: of this process.
        block: sequences of a block of the shards.
        num_windows, num_cut: windows of the epoch, and batches of each.
        masker: makes a batch of rows.
        seed: of the masks and of the order within a window; another for every process and epoch.
        world_size: processes that share the epoch; a place is worth nothing to another number of them.
    """

    def __init__(
        self,
        stream: ShardStream,
        block: int,
        num_windows: int,
        num_cut: int,
        masker: Masker,
        seed: int,
        world_size: int,
    ):
        self.stream, self.block, self.masker, self.seed = stream, block, masker, seed
        self.num_windows, self.num_cut, self.world_size = num_windows, num_cut, world_size
        self.position = 0  # batches handed out so far in this epoch
        self._resume_at = 0

    def __len__(self) -> int:
        return self.num_windows * self.num_cut

    def __iter__(self) -> Iterator[Batch]:
        start, self._resume_at = self._resume_at, 0
        first, skipped = divmod(start, self.num_cut)
        self._go_to(self._begin(first))
        for window in range(first, self.num_windows):
            count = self._begin(window + 1) - self._begin(window)
            table = TokenTable.of(islice(self.stream, count))
            batches = self._cut(table, window)
            for index in range(skipped, self.num_cut):
                number = window * self.num_cut + index
                self.position = (number + 1) % len(self)
                rows, silent = batches[index]
                batch = self.masker(table, rows, self.seed, number)
                yield batch.silenced() if silent else batch
            skipped = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "world_size": self.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raise UserError for a place among another number of processes."""
        if state["world_size"] != self.world_size:
            raise UserError(
                f"this run was shared by {state['world_size']} processes, now there are {self.world_size}: "
                f"its place in the corpus is lost. Say trainer.devices={state['world_size']}."
            )
        self.position = self._resume_at = state["position"]

    def _begin(self, window: int) -> int:
        """Of the stream's sequences, the first in a window."""
        return len(self.stream) * window // self.num_windows

    def _go_to(self, sequence: int) -> None:
        sizes_B = np.full(len(self.stream.order), self.block)
        # One block of the corpus may be shorter: the one with the highest number, if it is here.
        missing = int(sizes_B.sum()) - len(self.stream)
        if missing:
            sizes_B[np.argmax(self.stream.order)] -= missing
        ends_B = np.cumsum(sizes_B)
        block = int(np.searchsorted(ends_B, sequence, side="right"))
        offset = sequence - (int(ends_B[block - 1]) if block else 0)
        self.stream.load_state_dict({**self.stream.identity, "block": block, "offset": offset})

    def _cut(self, table: TokenTable, window: int) -> list[tuple[np.ndarray, bool]]:
        """Rows of each batch in a random order, and whether they only keep step: a short window has too few."""
        lengths_N = table.lengths
        rows_N = np.argsort(lengths_N, kind="stable")
        found = even_cut(rows_N, lengths_N[rows_N], self.num_cut, self.masker.multiple)
        batches = [(rows, False) for rows in found]
        batches += [(found[0], True)] * (self.num_cut - len(found))
        rng = np.random.default_rng([self.seed, window])
        return [batches[index] for index in rng.permutation(self.num_cut)]


def even_cut(
    rows_N: np.ndarray, lengths_N: np.ndarray, num_batches: int, multiple: int
) -> list[np.ndarray]:
    """Consecutive rows, lengths rising, in at most so many batches of the least padded size that allows it."""
    longest = -(-int(lengths_N[-1]) // multiple) * multiple
    total = int((-(-lengths_N // multiple) * multiple).sum())
    low, high = -(-total // num_batches) - 1, longest * len(rows_N)
    best = [rows_N]
    for _ in range(HALVINGS):
        budget = (low + high + 1) // 2
        if budget >= high:
            break
        found = cut_by_budget(rows_N, lengths_N, budget, multiple)
        if len(found) > num_batches:
            low = budget
        else:
            best, high = found, budget
    return best


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
        if list(self.tokenizer.vocabulary) != vocabulary:
            raise UserError(
                f"data={self.source.name}: the corpus was made with another vocabulary "
                f"({len(vocabulary):,} tokens) than the tokenizer's ({len(self.tokenizer):,}). Prepare it "
                "again with --vocabulary, or say data.tokenizer.vocabulary=null."
            )
