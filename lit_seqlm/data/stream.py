"""Long token streams, cut into columns and segments that carry their state."""

# B = sequences, T = tokens, L = length of a column

from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.resumable import ResumableLoader
from lit_seqlm.errors import UserError


def at_least_one(key: str, value: int) -> None:
    """Refuse a size of zero or less."""
    if value < 1:
        raise UserError(f"data.{key}={value}: it must be at least 1.")


def batchify(stream: Tensor, batch_size: int) -> Tensor:
    """B contiguous columns (B, L) of a stream; the remainder is dropped."""
    length = stream.numel() // batch_size
    return stream[: length * batch_size].view(batch_size, length)


def rotate_columns(columns_BL: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate every column by its own uniform offset (PartialShuffle, Press 2019)."""
    num_columns, length = columns_BL.shape
    offsets = torch.randint(length, (num_columns, 1), generator=generator).flatten().tolist()
    return torch.stack(
        [column.roll(-offset) for column, offset in zip(columns_BL, offsets, strict=True)]
    )


class FixedSegments:
    """Every segment has the same length, in tokens; the last one is what remains."""

    def __init__(self, seq_len: int):
        at_least_one("segments.seq_len", seq_len)
        self.seq_len = seq_len

    def lengths(self, total: int, rng: np.random.Generator) -> list[tuple[int, float]]:
        """(length, learning-rate scale) of each segment, covering `total` predictions."""
        return [(min(self.seq_len, total - start), 1.0) for start in range(0, total, self.seq_len)]


class VariableSegments:
    """AWD-LSTM's random lengths (Merity et al. 2018, section 4.1): each epoch has its own cuts.

    The base is `seq_len`, or half of it with probability `short_probability`; the length is drawn
    from a normal around it with deviation `std`, at least `min_len`, at most `seq_len + max_extra`
    (null: no cap), all in tokens. The step's learning rate is scaled by drawn length / `seq_len`,
    also where the stream ends before the segment.
    """

    def __init__(
        self,
        seq_len: int,
        short_probability: float,
        std: float,
        min_len: int,
        max_extra: int | None,
    ):
        at_least_one("segments.seq_len", seq_len)
        at_least_one("segments.min_len", min_len)
        if max_extra is not None:
            at_least_one("segments.seq_len + segments.max_extra", seq_len + max_extra)
        self.seq_len, self.short_probability, self.std = seq_len, short_probability, std
        self.min_len, self.max_extra = min_len, max_extra

    def lengths(self, total: int, rng: np.random.Generator) -> list[tuple[int, float]]:
        """(length, learning-rate scale) of each segment, covering `total` predictions exactly."""
        drawn, start = [], 0
        while start < total:
            base = self.seq_len if rng.random() >= self.short_probability else self.seq_len / 2
            length = max(self.min_len, int(rng.normal(base, self.std)))
            if self.max_extra is not None:
                length = min(length, self.seq_len + self.max_extra)
            drawn.append((min(length, total - start), length / self.seq_len))
            start += length
        return drawn


class StreamLoader(ResumableLoader):
    """Segments of B columns, in order: targets are the tokens shifted by one.

    A pure function of (columns, lengths).
    """

    def __init__(self, columns_BL: Tensor, lengths: list[tuple[int, float]]):
        super().__init__()
        self.columns_BL, self.lengths = columns_BL, lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Batch]:
        starts = [0, *accumulate(length for length, _ in self.lengths)]
        for index in self.remaining():
            start, (length, lr_scale) = starts[index], self.lengths[index]
            tokens_BT = self.columns_BL[:, start : start + length].long()
            targets_BT = self.columns_BL[:, start + 1 : start + length + 1].long()
            yield Batch(tokens_BT, targets_BT, continues=index > 0, lr_scale=lr_scale)


class WindowLoader:
    """Overlapping windows for models without a state: every token but the first is predicted once.

    Every window holds `context` tokens and scores its last `stride` predictions, so that each of
    them sees between `context - stride + 1` and `context` earlier tokens. Only the first window
    scores all of its own, beginning with one token of context. The last window scores what remains.
    """

    def __init__(self, stream: Tensor, context: int, stride: int, batch_size: int):
        if not 0 < stride <= context:
            raise UserError(
                f"data.eval_stride={stride}: it must be between 1 and data.eval_seq_len, {context}."
            )
        self.stream, self.context, self.stride, self.batch_size = (
            stream,
            context,
            stride,
            batch_size,
        )
        self._resume_at = 0  # batches
        total = stream.numel() - 1
        self.ends = [min(context, total)]
        while self.ends[-1] < total:
            self.ends.append(min(self.ends[-1] + stride, total))

    def __len__(self) -> int:
        return -(-len(self.ends) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        start, self._resume_at = self._resume_at * self.batch_size, 0
        for first in range(start, len(self.ends), self.batch_size):
            rows = [
                self._row(index)
                for index in range(first, min(first + self.batch_size, len(self.ends)))
            ]
            tokens_BT, targets_BT, mask_BT = (
                torch.stack(column) for column in zip(*rows, strict=True)
            )
            yield Batch(tokens_BT, targets_BT, mask_BT)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration at a batch."""
        self._resume_at = state["position"]

    def _row(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """One window; a stream shorter than the context is padded on the right, out of the mask."""
        end = self.ends[index]
        start = max(0, end - self.context)
        scored_from = self.ends[index - 1] if index else 0
        pad = self.context - (end - start)
        tokens = torch.nn.functional.pad(self.stream[start:end].long(), (0, pad))
        targets = torch.nn.functional.pad(self.stream[start + 1 : end + 1].long(), (0, pad))
        mask = torch.zeros(self.context, dtype=torch.bool)
        mask[scored_from - start : end - start] = True
        return tokens, targets, mask
