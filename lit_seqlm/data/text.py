"""Text corpora as continuous token streams."""

import logging
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from lit_seqlm.data.corpus import SPLITS, TextSource
from lit_seqlm.data.exact import text_numbers
from lit_seqlm.data.open_vocabulary import OpenStream, document_starts, open_stream
from lit_seqlm.data.stream import (
    FixedSegments,
    StreamLoader,
    VariableSegments,
    WindowLoader,
    at_least_one,
    batchify,
    rotate_columns,
)
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import UNK, WordTokenizer

log = logging.getLogger(__name__)


class TextData(lightning.LightningDataModule):
    """Three streams of tokens: columns with carried state to train on, one stream for the record.

    `streams` holds one int32 tensor (N,) for each of train, valid and test: the file's lines in
    their order, an ``<eos>`` after each. Loaders yield `Batch` with int64 tokens and
    targets (B, T).

    Validation during training runs over `eval_batch_size` columns, whose remainder is dropped. The
    numbers of the record (`exact_dataloader`) come from one stream, batch 1, nothing reset: N - 1
    predictions. Where `eval_stride` is given, for models that carry no state, both come from
    overlapping windows instead, also N - 1 predictions.

    Args:
        source: where the lines come from (`lit_seqlm.data.corpus`).
        tokenizer: built on the training split unless it already holds a vocabulary.
        segments: how a column is cut for back-propagation through time.
        batch_size, eval_batch_size: columns in training and in validation; windows per batch with
            `eval_stride`.
        eval_seq_len: tokens per evaluation segment, or per window; a stateful model's numbers do
            not depend on it.
        eval_stride: null for models with a state; else score windows of `eval_seq_len` by this
            stride, in tokens.
        shuffle: ``none``, or ``partial`` to rotate every column by its own offset at each epoch.
        seed: of the segment lengths and the rotation, with the epoch.

    Raises:
        UserError: for sizes that cannot be; in `prepare_data` and `setup`, for a text that is
        missing, not the published one, without words, too short for its columns, or outside the
        vocabulary.
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
        for key, size in (
            ("batch_size", batch_size),
            ("eval_batch_size", eval_batch_size),
            ("eval_seq_len", eval_seq_len),
        ):
            at_least_one(key, size)
        self.source, self.tokenizer, self.segments = source, tokenizer, segments
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.eval_seq_len, self.eval_stride = eval_seq_len, eval_stride
        self.shuffle, self.seed = shuffle, seed
        self.streams: dict[str, Tensor] = {}
        self.num_replaced: dict[str, int] = {}  # tokens of validation and test that are <unk> here

    def fingerprint(self) -> str:
        """What tells this text from another under the same name; part of a run's identity."""
        return self.source.digest()

    def prepare_data(self) -> None:
        self.source.fetch()

    def setup(self, stage: str | None = None) -> None:
        """Read and encode the three splits; a second call does nothing."""
        if self.streams:
            return
        streams = {}
        for split in SPLITS:
            where = f"data={self.source.name}: the {split} text"
            if len(self.tokenizer):
                ids = self.tokenizer.encode(self.source.lines(split), where)
            else:
                ids = self.tokenizer.fit_encode(self.source.lines(split))
            self._check_length(where, split, ids)
            streams[split] = torch.from_numpy(ids)
            self.num_replaced[split] = self.tokenizer.num_replaced
        self.streams = streams
        log.info(
            "%s: %s tokens, vocabulary %s",
            self.source.name,
            " / ".join(f"{len(stream):,}" for stream in self.streams.values()),
            f"{len(self.tokenizer):,}",
        )

    def num_bytes(self, split: str) -> int | None:
        """Bytes of a split's lines in UTF-8, which a model that predicts its tokens accounts for.

        None where it does not: words became ``<unk>``, or upper case was lost.
        """
        if self.num_replaced[split] or self.tokenizer.lowercase:
            return None
        return sum(len(line.encode()) for line in self.source.lines(split))

    def exact_numbers(
        self, split: str, nll: float, scored: float, new_words: str = "unknown"
    ) -> dict[str, float]:
        """What follows from a split's mean loss (`lit_seqlm.data.exact`)."""
        whole = len(self.streams[split]) - 1
        unknown = self.num_replaced[split] / (whole + 1)
        size = self.num_bytes(split)
        return text_numbers(split, nll, scored, whole, unknown, size, new_words)

    @property
    def needs_state(self) -> bool:
        """Whether only a model that carries a state from batch to batch can be scored on it."""
        return self.eval_stride is None

    def open_stream(self, split: str) -> OpenStream:
        """A split once more, where words outside the vocabulary have ids of their own."""
        self.setup()
        return open_stream(self.source.lines(split), self.tokenizer)

    def document_starts(self, split: str) -> np.ndarray:
        """Where each document begins in the split's stream: int64, one offset a document."""
        self.setup()
        num_tokens = len(self.streams[split])
        return document_starts(self.source.documents(split), self.tokenizer, num_tokens)

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

    def columns_loader(self, split: str, num_columns: int, seq_len: int) -> Any:
        """Segments of `seq_len` tokens of so many columns; windows where `eval_stride` is given."""
        return self._eval_loader(split, num_columns, seq_len)

    def exact_dataloader(self, split: str) -> Any:
        """The protocol of every reported number: in order, each token but the first scored once."""
        return self._eval_loader(split, batch_size=1)

    def _eval_loader(self, split: str, batch_size: int, seq_len: int | None = None) -> Any:
        if self.eval_stride is not None:
            return WindowLoader(
                self.streams[split], self.eval_seq_len, self.eval_stride, self.eval_batch_size
            )
        columns_BL = batchify(self.streams[split], batch_size)
        lengths = FixedSegments(seq_len or self.eval_seq_len).lengths(
            columns_BL.size(1) - 1, np.random.default_rng(0)
        )
        return StreamLoader(columns_BL, lengths)

    def _check_length(self, where: str, split: str, ids: np.ndarray) -> None:
        if not len(ids) or (ids == ids[0]).all():
            raise UserError(
                f"{where} has no words, or one word alone. Put text there, words separated by "
                "spaces."
            )
        valid_columns = self.eval_batch_size if self.eval_stride is None else 1
        columns, key = {
            "train": (self.batch_size, "batch_size"),
            "valid": (valid_columns, "eval_batch_size"),
        }.get(split, (1, "batch_size"))
        if len(ids) < 2 * columns:
            raise UserError(
                f"{where} has {len(ids)} tokens, too few for {columns} columns of at least 2. "
                f"Use a longer text or a smaller data.{key}."
            )
