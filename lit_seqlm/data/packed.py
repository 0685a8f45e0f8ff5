"""Masked language modelling on packed rows."""

# N = sequences

import logging
from typing import Any

import numpy as np

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.masked import MaskedData, SequenceSource
from lit_seqlm.data.masked_loader import MaskedLoader
from lit_seqlm.data.masking import Masking
from lit_seqlm.data.packed_loader import PackedMasker, row_batches
from lit_seqlm.data.property_loader import truncated
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)


class PackedData(MaskedData):
    """Sequences as `MaskedData` has them, several in a row, each alone with itself.

    Every epoch shuffles the sequences and packs them anew; validation and test keep their order, their rows
    and their masks. A batch is as many whole rows as `token_budget` takes, and at least one.

    Args:
        packing: ``block_diagonal``; ``none`` pads batches of like length instead, as `MaskedData`.
        row_len: tokens of a row, at most.
        max_len: tokens of a sequence without its ends; a longer one is truncated, or left out and counted.
        over_long: ``truncate`` or ``skip``.
        source, tokenizer, masking, token_budget, eval_token_budget, window, multiple, min_len, seed: see `MaskedData`.

    Raises:
        UserError: for a word that is not accepted, and if a row has no room for a sequence.
    """

    def __init__(
        self,
        source: SequenceSource,
        tokenizer: Any,
        masking: Masking,
        packing: str,
        row_len: int,
        token_budget: int,
        eval_token_budget: int,
        window: int,
        multiple: int,
        min_len: int,
        max_len: int,
        over_long: str,
        seed: int,
    ):
        super().__init__(
            source, tokenizer, masking, token_budget, eval_token_budget, window, multiple, min_len, max_len, seed
        )  # fmt: skip
        if packing not in ("block_diagonal", "none"):
            raise UserError(f"data.packing={packing}: choose block_diagonal or none.")
        if over_long not in ("truncate", "skip"):
            raise UserError(f"data.over_long={over_long}: choose truncate or skip.")
        if row_len < max_len + tokenizer.num_ends:
            raise UserError(
                f"data.row_len={row_len}: it has no room for data.max_len={max_len} and {tokenizer.num_ends} more. "
                f"Say data.max_len={row_len - tokenizer.num_ends}."
            )
        self.packing, self.row_len, self.over_long = packing, row_len, over_long
        self.is_packed = packing == "block_diagonal"

    @property
    def masker(self) -> Any:
        make = PackedMasker if self.is_packed else super().masker.__class__
        return make(self.masking, self.vocabulary, self.tokenizer.pad_id, self.multiple)

    def train_dataloader(self) -> MaskedLoader:
        if not self.is_packed:
            return super().train_dataloader()
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.tables["train"]))
        batches = self._batches("train", order, self.token_budget)
        if epoch == 0:
            filled = self.tables["train"].lengths.sum() / max(1, sum(map(len, batches)))
            log.info(
                "%d batches an epoch, rows of %.0f of %d tokens", len(batches), filled, self.row_len
            )
        return self._loader("train", batches, int(rng.integers(2**31)))

    def exact_dataloader(self, split: str) -> MaskedLoader:
        """Every sequence once, under masks that never change."""
        if not self.is_packed:
            return super().exact_dataloader(split)
        order = np.arange(len(self.tables[split]))
        batches = self._batches(split, order, self.eval_token_budget)
        return self._loader(split, batches, SPLITS.index(split))

    def _batches(self, split: str, order: np.ndarray, token_budget: int) -> list[Any]:
        return row_batches(order, self.tables[split].lengths, self.row_len, token_budget)

    def _fitted(self, table: TokenTable, split: str) -> TokenTable:
        if self.over_long == "skip":
            return table
        inner = table.lengths - self.tokenizer.num_ends
        num_cut, lost = int((inner > self.max_len).sum()), int((inner - self.max_len).clip(0).sum())
        if num_cut:
            ends = self.tokenizer.num_ends
            is_full = self.is_packed and self.row_len == self.max_len + ends
            why = f"a row of data.row_len={self.row_len} has room for no more beside the ends of a sequence ({ends})"
            log.warning(
                "%s: %d of %d sequences of %s have more than data.max_len=%d tokens. They are cut there, and what is "
                "behind is not read, %s tokens in all: %s. data.over_long=skip leaves such sequences out",
                self.source.name, num_cut, len(table), split, self.max_len, f"{lost:,}",
                why if is_full else "data.max_len says so",
            )  # fmt: skip
        return truncated(table, self.max_len, self.tokenizer.num_ends)
