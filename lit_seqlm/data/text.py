"""Text corpora as continuous token streams."""

import logging
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from lit_seqlm.data.corpus import TextSource
from lit_seqlm.data.stream import (
    FixedSegments,
    StreamLoader,
    VariableSegments,
    WindowLoader,
    batchify,
    rotate_columns,
)
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import UNK, WordTokenizer

log = logging.getLogger(__name__)


class TextData(lightning.LightningDataModule):
    """Three streams of words: train in columns with carried state, validation for selection, both for the record.

    Validation during training runs over `eval_batch_size` columns. The numbers of the record
    (`exact_dataloader`) come from one stream, batch 1, nothing reset, or from overlapping windows where
    `eval_stride` is given, for models that carry no state.

    Args:
        source: where the lines come from (`lit_seqlm.data.corpus`).
        tokenizer: built on the training split unless it already holds a vocabulary.
        segments: how a column is cut for back-propagation through time.
        batch_size, eval_batch_size: columns in training and in validation.
        eval_seq_len: tokens per evaluation segment; a stateful model's numbers do not depend on it.
        eval_stride: null for models with a state; else score windows of `eval_seq_len` by this stride.
        shuffle: ``none``, or ``partial`` to rotate every column by its own offset at each epoch.
        seed: of the segment lengths and the rotation, with the epoch.
    """

    def __init__(
        self,
        source: TextSource,
        tokenizer: WordTokenizer,
        segments: FixedSegments | VariableSegments,
        batch_size: int,
        eval_batch_size: int,
        eval_seq_len: int,
        eval_stride: int | None,
        shuffle: str,
        seed: int,
    ):
        super().__init__()
        if shuffle not in ("none", "partial"):
            raise UserError(f"data.shuffle={shuffle}: choose none or partial")
        self.source, self.tokenizer, self.segments = source, tokenizer, segments
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.eval_seq_len, self.eval_stride = eval_seq_len, eval_stride
        self.shuffle, self.seed = shuffle, seed
        self.streams: dict[str, Tensor] = {}

    def prepare_data(self) -> None:
        self.source.fetch()

    def setup(self, stage: str | None = None) -> None:
        if self.streams:
            return
        if not len(self.tokenizer):
            self.tokenizer.fit(self.source.lines("train"))
        for split in ("train", "valid", "test"):
            ids = self.tokenizer.encode(self.source.lines(split))
            self.streams[split] = torch.from_numpy(ids)
            needed = 2 * (self.batch_size if split == "train" else self.eval_batch_size)
            if len(ids) < needed:
                raise UserError(
                    f"data={self.source.name}: the {split} text has {len(ids)} tokens, too few for "
                    f"{needed // 2} columns of at least 2. Use a longer text or a smaller data.batch_size."
                )
        log.info(
            "%s: %s tokens, vocabulary %s",
            self.source.name,
            " / ".join(f"{len(stream):,}" for stream in self.streams.values()),
            f"{len(self.tokenizer):,}",
        )

    @property
    def unknown_id(self) -> int | None:
        return self.tokenizer.index.get(UNK)

    def train_dataloader(self) -> StreamLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        columns_BL = batchify(self.streams["train"], self.batch_size)
        if self.shuffle == "partial":
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            columns_BL = rotate_columns(columns_BL, generator)
        rng = np.random.default_rng([self.seed, epoch])
        return StreamLoader(columns_BL, self.segments.lengths(columns_BL.size(1) - 1, rng))

    def val_dataloader(self) -> Any:
        return self._eval_loader("valid", self.eval_batch_size)

    def exact_dataloader(self, split: str) -> Any:
        """The protocol behind every reported number: one stream, in order, every token but the first scored once."""
        return self._eval_loader(split, batch_size=1)

    def _eval_loader(self, split: str, batch_size: int) -> Any:
        if self.eval_stride is not None:
            return WindowLoader(
                self.streams[split], self.eval_seq_len, self.eval_stride, self.eval_batch_size
            )
        columns_BL = batchify(self.streams[split], batch_size)
        lengths = FixedSegments(self.eval_seq_len).lengths(columns_BL.size(1) - 1, np.random.default_rng(0))
        return StreamLoader(columns_BL, lengths)
