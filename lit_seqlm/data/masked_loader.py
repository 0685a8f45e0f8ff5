"""Batches of masked sequences, in an order that is known before."""

# B = sequences, T = tokens

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.masking import Masking, Vocabulary
from lit_seqlm.data.ranks import Share
from lit_seqlm.data.token_table import TokenTable

SPREAD = 1_000_003  # a prime: keeps the masks of neighbouring seeds apart


@dataclass(frozen=True)
class Masker:
    """Pads rows of a table and masks them: a pure function of the rows, a seed and the batch's number.

    Attributes:
        masking: which tokens are to be found again.
        vocabulary: what may be masked, and by what.
        pad_id: fills up a batch.
        multiple: widths are rounded up to one of these.
    """

    masking: Masking
    vocabulary: Vocabulary
    pad_id: int
    multiple: int

    def __call__(self, table: TokenTable, rows: np.ndarray, seed: int, number: int) -> Batch:
        tokens_BT, valid_BT = table.pad(rows, self.pad_id, self.multiple)
        generator = torch.Generator().manual_seed(seed * SPREAD + number)
        read_BT, selected_BT = self.masking(tokens_BT, self.vocabulary, generator)
        return Batch(read_BT, tokens_BT, selected_BT, valid_BT)


class MaskedLoader:
    """Batches of a table's rows, masked as they are handed out.

    Its place is in the checkpoint, as a `StreamLoader`'s is. Masks follow from a batch's number among
    those of all processes, so that they do not depend on how many processes share an epoch.
    """

    def __init__(self, table: TokenTable, share: Share, masker: Masker, seed: int):
        self.table, self.share, self.masker, self.seed = table, share, masker, seed
        self.position = 0  # batches handed out so far in this epoch
        self._resume_at = 0

    def __len__(self) -> int:
        return len(self.share)

    def __iter__(self) -> Iterator[Batch]:
        first, self._resume_at = self._resume_at, 0
        for index in range(first, len(self)):
            self.position = (index + 1) % len(self)
            rows, number = self.share.batches[index], self.share.numbers[index]
            batch = self.masker(self.table, rows, self.seed, number)
            yield batch if index < self.share.num_scored else batch.silenced()

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = self._resume_at = state["position"]
