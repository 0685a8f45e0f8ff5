"""Long token streams, cut into columns and segments that carry their state."""

# B = sequences, T = tokens, L = length of a column

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.data.batch import Batch


def batchify(stream: Tensor, batch_size: int) -> Tensor:
    """B contiguous columns (B, L) of a stream; the remainder is dropped."""
    length = stream.numel() // batch_size
    return stream[: length * batch_size].view(batch_size, length)


def rotate_columns(columns_BL: Tensor, generator: torch.Generator) -> Tensor:
    """Start every column somewhere else: rotate each by its own uniform offset (PartialShuffle, Press 2019)."""
    length = columns_BL.size(1)
    offsets_B1 = torch.randint(length, (columns_BL.size(0), 1), generator=generator)
    return columns_BL.gather(1, (torch.arange(length) + offsets_B1) % length)


class FixedSegments:
    """Every segment has the same length; the last one is what remains."""

    def __init__(self, seq_len: int):
        self.seq_len = seq_len

    def lengths(self, total: int, rng: np.random.Generator) -> list[tuple[int, float]]:
        """(length, learning-rate scale) of each segment, covering `total` predictions."""
        return [(min(self.seq_len, total - start), 1.0) for start in range(0, total, self.seq_len)]


class VariableSegments:
    """AWD-LSTM's random lengths (Merity et al. 2018, section 4.1), so that cuts fall elsewhere in every epoch.

    The base is `seq_len`, or half of it with probability `short_probability`; the length is drawn from a normal
    around it with deviation `std`, at least `min_len`, at most `seq_len + max_extra` (null: no cap). The step's
    learning rate is scaled by length / `seq_len`.
    """

    def __init__(
        self, seq_len: int, short_probability: float, std: float, min_len: int, max_extra: int | None
    ):
        self.seq_len, self.short_probability, self.std = seq_len, short_probability, std
        self.min_len, self.max_extra = min_len, max_extra

    def lengths(self, total: int, rng: np.random.Generator) -> list[tuple[int, float]]:
        drawn, start = [], 0
        while start < total:
            base = self.seq_len if rng.random() >= self.short_probability else self.seq_len / 2
            length = max(self.min_len, int(rng.normal(base, self.std)))
            if self.max_extra is not None:
                length = min(length, self.seq_len + self.max_extra)
            drawn.append((min(length, total - start), length / self.seq_len))
            start += length
        return drawn


class StreamLoader:
    """Segments of B columns, in order. A pure function of (columns, lengths), with its place in the checkpoint."""

    def __init__(self, columns_BL: Tensor, lengths: list[tuple[int, float]]):
        self.columns_BL, self.lengths = columns_BL, lengths
        self.position = 0  # batches handed out so far

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Batch]:
        first, self.position = self.position, 0
        start = sum(length for length, _ in self.lengths[:first])
        for index, (length, lr_scale) in enumerate(self.lengths[first:], start=first):
            tokens_BT = self.columns_BL[:, start : start + length].long()
            targets_BT = self.columns_BL[:, start + 1 : start + length + 1].long()
            start += length
            self.position = index + 1
            yield Batch(tokens_BT, targets_BT, continues=index > 0, lr_scale=lr_scale)
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class WindowLoader:
    """Overlapping windows for models without a carried state: each token is predicted once.

    Every window holds `context` tokens and scores its last `stride` predictions (the first window scores all),
    so a prediction sees between `context - stride` and `context - 1` earlier tokens.
    """

    def __init__(self, stream: Tensor, context: int, stride: int, batch_size: int):
        if not 0 < stride <= context:
            raise ValueError(f"stride {stride} must be between 1 and the context, {context}")
        self.stream, self.context, self.stride, self.batch_size = stream, context, stride, batch_size
        total = stream.numel() - 1
        self.ends = [min(context, total)]
        while self.ends[-1] < total:
            self.ends.append(min(self.ends[-1] + stride, total))

    def __len__(self) -> int:
        return -(-len(self.ends) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.ends), self.batch_size):
            rows = [self._row(index) for index in range(first, min(first + self.batch_size, len(self.ends)))]
            tokens_BT, targets_BT, mask_BT = (torch.stack(column) for column in zip(*rows, strict=True))
            yield Batch(tokens_BT, targets_BT, mask_BT)

    def _row(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """One window: short ones (a stream below one context) are padded on the right, outside the mask."""
        end = self.ends[index]
        start = max(0, end - self.context)
        scored_from = self.ends[index - 1] if index else 0
        pad = self.context - (end - start)
        tokens = torch.nn.functional.pad(self.stream[start:end].long(), (0, pad))
        targets = torch.nn.functional.pad(self.stream[start + 1 : end + 1].long(), (0, pad))
        mask = torch.zeros(self.context, dtype=torch.bool)
        mask[scored_from - start : end - start] = True
        return tokens, targets, mask
