"""Whether a model has a position for each token of the data."""

# N = sequences

from typing import Any

import numpy as np
from torch import nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.encoder_positions import AbsolutePositions


def check_room(model: nn.Module, datamodule: Any) -> None:
    """Refuse a sequence that a model cannot read before anything is learnt, and not in the batch that it comes in.

    Positions that are turned, or not there, have no end; streams are cut into segments.

    Raises:
        UserError: the longest sequence has more tokens than the model has learned positions.
    """
    learned = [len(part.weight) for part in model.modules() if isinstance(part, AbsolutePositions)]
    if not learned or not hasattr(datamodule, "tables"):
        return
    most, (length, called) = min(learned), longest(datamodule)
    if length <= most:
        return
    room = most - datamodule.tokenizer.num_ends
    shorter = (
        f"Say data.max_len={room}"
        if hasattr(datamodule, "max_len")
        else f"Prepare the corpus again with --max-len {room}"
    )
    raise UserError(
        f"data={datamodule.source.name}, {called}: a sequence of {length:,} tokens, but model.positions=absolute has "
        f"learned vectors for {most:,} only. {shorter}; or, for a model that is not trained yet, "
        f"model.max_len={length} or model.positions=rotary."
    )


def longest(datamodule: Any) -> tuple[int, str]:
    """Tokens of the longest sequence of all splits, and what to call it: the split, and its name or number there."""
    found = [(0, "")]
    counts_of = getattr(datamodule.source, "lengths", None)  # of shards, whose names nobody keeps
    if counts_of is not None:
        found += [(max(counts_of(split), default=0), split) for split in datamodule.source.splits]
    for split, table in datamodule.tables.items():
        lengths_N = getattr(table, "tokens", table).lengths
        row = int(np.argmax(lengths_N))
        found.append((int(lengths_N[row]), f"{split}, {_called(table, row, datamodule.tokenizer)}"))
    return max(found, key=lambda one: one[0])


def _called(table: Any, row: int, tokenizer: Any) -> str:
    if hasattr(table, "table"):  # of annotations
        return f"{table.table.names[row]} (row {table.table.numbers[row]})"
    if hasattr(table, "rows_N"):  # of properties
        return f"row {table.rows_N[row]}"
    return f"sequence {row + 1}, {tokenizer.decode(table[row])[:30]}..."
