"""Batches of masked sequences, in an order that is known before."""

# B = sequences, T = tokens

from dataclasses import dataclass

import numpy as np
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.masking import Masking, Vocabulary
from lit_seqlm.data.ranks import Share
from lit_seqlm.data.resumable import ShareLoader
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


class MaskedLoader(ShareLoader):
    """Batches of a table's rows, masked as they are handed out.

    Masks follow from a batch's number among those of all processes, so that they do not depend on how
    many processes share an epoch.
    """

    def __init__(self, table: TokenTable, share: Share, masker: Masker, seed: int):
        super().__init__(share)
        self.table, self.masker, self.seed = table, masker, seed

    def batch(self, rows: np.ndarray, number: int) -> Batch:
        return self.masker(self.table, rows, self.seed, number)
