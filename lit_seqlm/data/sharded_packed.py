"""Packed rows of masked sequences, streamed from shards."""

from itertools import pairwise
from typing import Any

import numpy as np

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.masked_loader import MaskedLoader
from lit_seqlm.data.masking import Masking
from lit_seqlm.data.packed_loader import PackedMasker, pack, row_batches
from lit_seqlm.data.sharded import ShardedSequences
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

SAMPLE = 2**16  # sequences drawn to learn how full rows are


class ShardedPackedData(ShardedSequences):
    """Several sequences in a row, each alone with itself, as `lit_seqlm.data.packed.PackedData` has them in memory.

    A window is shuffled and packed anew in every epoch, and its rows are dealt to batches as evenly as can be: of
    `token_budget` a batch holds 98 %, in whole rows. Which rows are in which batch follows from (seed, epoch,
    process, window).

    Args:
        row_len: tokens of a row, at most.
        source, tokenizer, masking, token_budget, eval_token_budget, window, seed: see `ShardedSequences`.

    Raises:
        UserError: in `setup`, if the corpus has a sequence that is longer than a row.
    """

    def __init__(
        self,
        source: ShardSource,
        tokenizer: Any,
        masking: Masking,
        row_len: int,
        token_budget: int,
        eval_token_budget: int,
        window: int,
        seed: int,
    ):
        super().__init__(tokenizer, masking, token_budget, eval_token_budget, window, 1, seed)
        at_least_one("row_len", row_len)
        self.source, self.row_len = source, row_len

    @property
    def masker(self) -> PackedMasker:
        return PackedMasker(self.masking, self.vocabulary, self.tokenizer.pad_id, self.multiple)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        longest, _ = self.source.longest
        if longest > self.row_len:
            ends = self.tokenizer.num_ends
            raise UserError(
                f"data.row_len={self.row_len}: the corpus has a sequence of {longest:,} tokens. Say data.row_len="
                f"{longest}, or prepare it again with --max-len {self.row_len - ends}."
            )

    def exact_dataloader(self, split: str) -> MaskedLoader:
        """Every sequence once, under masks that never change."""
        table = self.tables[split]
        order = np.arange(len(table))
        batches: list[Any] = row_batches(order, table.lengths, self.row_len, self.eval_token_budget)
        return self._loader(split, batches, SPLITS.index(split))

    def sizes(self, world_size: int, num_windows: int) -> tuple[float, float]:
        """In rows: a sample of lengths is packed to see how full they are."""
        counts = self.source.lengths("train")
        share = np.array(list(counts.values())) / self.source.num_sequences("train")
        drawn = np.random.default_rng(0).choice(np.array(list(counts)), SAMPLE, p=share)
        tokens_of_row = drawn.sum() / len(pack(np.arange(SAMPLE), drawn, self.row_len))
        num_rows = self.source.num_tokens("train") / tokens_of_row / world_size / num_windows
        return num_rows, max(1, self.token_budget // self.row_len)

    def cut(self, table: TokenTable, num_batches: int, rng: np.random.Generator) -> list[Any]:
        rows = pack(rng.permutation(len(table)), table.lengths, self.row_len)
        edges = [len(rows) * number // num_batches for number in range(num_batches + 1)]
        return [rows[a:b] for a, b in pairwise(edges) if a < b]
