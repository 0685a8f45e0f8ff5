"""Loaders whose place in an epoch is in the checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.ranks import Share


class ResumableLoader(ABC):
    """Batches in an order that is known before, and how many of this epoch were handed out.

    An iterator begins at the start unless a place was loaded, so a loop that was cut short
    (``limit_val_batches``) does not shift the next one.
    """

    def __init__(self) -> None:
        self.position = 0  # batches handed out so far in this epoch
        self._resume_at = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = self._resume_at = state["position"]

    def remaining(self) -> Iterator[int]:
        """Numbers of the epoch's batches from its place on; a batch is handed out when its number is."""
        first, self._resume_at = self._resume_at, 0
        self.position = first
        for index in range(first, len(self)):
            self.position = (index + 1) % len(self)  # the end of an epoch is the start of the next
            yield index


class ShareLoader(ResumableLoader):
    """One process's share of an epoch, each batch from the rows of a table."""

    def __init__(self, share: Share):
        super().__init__()
        self.share = share

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.remaining():
            batch = self.batch(self.share.batches[index], self.share.numbers[index])
            yield batch if index < self.share.num_scored else batch.silenced()

    @abstractmethod
    def batch(self, rows: np.ndarray, number: int) -> Batch:
        """Of some rows of the table; `number` is the batch's among those of all processes."""
