"""One process's batches of a corpus in shards, a window in memory at a time."""

# N = sequences of a window, B = blocks of a stream

from collections.abc import Iterator
from itertools import islice

import numpy as np

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import even_cut
from lit_seqlm.data.masked_loader import Masker
from lit_seqlm.data.shards import ShardStream
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError


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
