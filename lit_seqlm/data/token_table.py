"""Many short token sequences in one flat array."""

# N = sequences, B = sequences of a batch, T = tokens of its longest

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


class TokenTable:
    """Sequences end to end, two bytes a token, with the place where each begins.

    Args:
        ids: of all tokens, uint16.
        offsets: int64, one more than there are sequences: row i is ``ids[offsets[i] : offsets[i + 1]]``.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray):
        self.ids, self.offsets = ids, offsets

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int] | np.ndarray]) -> "TokenTable":
        rows = [np.asarray(row, np.uint16) for row in sequences]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.uint16), *rows]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64 (N,)."""
        return np.diff(self.offsets)

    def select(self, rows: np.ndarray) -> "TokenTable":
        """A table of some rows, in the order given."""
        return TokenTable.of(self[int(row)] for row in rows)

    def pad(self, rows: np.ndarray, pad_id: int, multiple: int = 1) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T) int64, padded on the right, and where they are tokens; None where all are.

        Args:
            multiple: T is rounded up to one of these.
        """
        lengths_B = (self.offsets[rows + 1] - self.offsets[rows])[:, None]
        width = int(-(-lengths_B.max() // multiple) * multiple)
        columns_T = np.arange(width)
        valid_BT = columns_T < lengths_B
        # What lies behind a row's end is another row's, or the last id: replaced either way.
        places_BT = np.minimum(self.offsets[rows][:, None] + columns_T, max(len(self.ids) - 1, 0))
        tokens_BT = np.where(valid_BT, self.ids[places_BT].astype(np.int64), pad_id)
        valid = None if valid_BT.all() else torch.from_numpy(valid_BT)
        return torch.from_numpy(tokens_BT), valid
