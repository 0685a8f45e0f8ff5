"""A tensor of rows that grows as slots are written."""

# N = rows written, S = slots

import torch
from torch import Tensor

FIRST_ROWS = 1024


class GrowingRows:
    """Rows by slot. The room doubles when it is used up, so that writing costs O(1) a row; never beyond `limit`.

    Args:
        limit: slots there can ever be; None for no limit.
    """

    def __init__(self, limit: int | None):
        self.limit = limit
        self.size = 0
        self._rows: Tensor | None = None

    def __len__(self) -> int:
        return self.size

    @property
    def filled(self) -> Tensor:
        """A view (size, ...) of what has been written; valid until the next write."""
        assert self._rows is not None, "nothing has been written"
        return self._rows[: self.size]

    @property
    def num_bytes(self) -> int:
        """Bytes of the filled rows; on a CPU the spare room is not backed by memory until it is written."""
        return 0 if self._rows is None else self.filled.numel() * self._rows.element_size()

    def follow(self, device: torch.device) -> None:
        """Move to where the queries are."""
        if self._rows is not None and self._rows.device != device:
            self._rows = self._rows.to(device)

    def write(self, slots_N: Tensor, values_N: Tensor) -> None:
        """Write rows. Slots beyond the size must leave no gap when all are written."""
        if not len(slots_N):
            return
        needed = max(self.size, int(slots_N.max()) + 1)
        if self._rows is None:
            self._rows = values_N.new_empty((self._room(needed), *values_N.shape[1:]))
        elif needed > len(self._rows):
            rows = self._rows.new_empty((self._room(needed), *self._rows.shape[1:]))
            rows[: self.size] = self.filled
            self._rows = rows
        self._rows[slots_N.to(self._rows.device)] = values_N.to(self._rows)
        self.size = needed

    def _room(self, needed: int) -> int:
        room = max(needed, 2 * self.size, FIRST_ROWS)
        return room if self.limit is None else max(needed, min(room, self.limit))

    def dump(self) -> Tensor | None:
        """A copy of the filled rows; None before the first write."""
        return None if self._rows is None else self.filled.clone()

    def load(self, rows: Tensor | None) -> None:
        """Take over what `dump` gave."""
        self._rows = rows
        self.size = 0 if rows is None else len(rows)
