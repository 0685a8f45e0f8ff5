"""One process's batches of a corpus in shards, a window in memory at a time."""

# N = sequences of a window, B = blocks of a stream

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.masked_loader import Masker
from lit_seqlm.data.resumable import ResumableLoader
from lit_seqlm.data.shards import ShardStream
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

# A window's sequences, the number of batches and a source of chance -> rows of each batch, no more than that number.
Cut = Callable[[TokenTable, int, np.random.Generator], list[Any]]


class ShardLoader(ResumableLoader):
    """One process's batches of one epoch, window by window of its stream.

    A window is cut into `num_cut` batches, the same number for every window and every process. So the
    length of an epoch is known before anything is read, all processes take as many steps, and the
    place in an epoch is one number. Everything follows from (seed, epoch, process): a loader that
    loads a place goes to the window's begin in the stream, and on from there.

    Args:
        stream: of this process.
        block: sequences of a block of the shards.
        num_windows, num_cut: windows of the epoch, and batches of each.
        cut: a window into batches.
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
        cut: Cut,
        masker: Masker,
        seed: int,
        world_size: int,
    ):
        super().__init__()
        self.stream, self.block, self.masker, self.seed = stream, block, masker, seed
        self.num_windows, self.num_cut, self.world_size = num_windows, num_cut, world_size
        self.cut = cut

    def __len__(self) -> int:
        return self.num_windows * self.num_cut

    def __iter__(self) -> Iterator[Batch]:
        current = None
        for number in self.remaining():
            window, index = divmod(number, self.num_cut)
            if window != current:
                table = self._read(window, goes_on=current is not None)
                batches, current = self._cut(table, window), window
            rows, silent = batches[index]
            batch = self.masker(table, rows, self.seed, number)
            yield batch.silenced() if silent else batch

    def state_dict(self) -> dict[str, int]:
        return {**super().state_dict(), "world_size": self.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raise UserError for a place among another number of processes."""
        if state["world_size"] != self.world_size:
            raise UserError(
                f"this run was shared by {state['world_size']} processes, now there are {self.world_size}: "
                f"its place in the corpus is lost. Say trainer.devices={state['world_size']}."
            )
        super().load_state_dict(state)

    def _read(self, window: int, goes_on: bool) -> TokenTable:
        """A window of the stream, which is at its begin already where reading `goes_on`."""
        if not goes_on:
            self._go_to(self._begin(window))
        return TokenTable.of(islice(self.stream, self._begin(window + 1) - self._begin(window)))

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

    def _cut(self, table: TokenTable, window: int) -> list[tuple[Any, bool]]:
        """Rows of each batch in a random order, and whether they only keep step: a short window has too few."""
        rng = np.random.default_rng([self.seed, window])
        found = self.cut(table, self.num_cut, rng)
        batches = [(rows, False) for rows in found]
        batches += [(found[0], True)] * (self.num_cut - len(found))
        return [batches[index] for index in rng.permutation(self.num_cut)]
