"""Whether a model has a position for each token of the data."""

# N = sequences

from typing import Any

import numpy as np
from torch import nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.encoder_positions import AbsolutePositions, no_room


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
    shorter = _shorter(datamodule, most - datamodule.tokenizer.num_ends)
    where = f"data={datamodule.source.name}, {called}"
    raise UserError(f"{where}: {no_room(length, most, shorter)}")


def _shorter(datamodule: Any, room: int) -> str:
    """What to type so that no sequence has more tokens, its ends not counted."""
    if not hasattr(datamodule, "max_len"):
        return f"Prepare the corpus again with --max-len {room}"
    if getattr(datamodule, "over_long", None) != "error":
        return f"Say data.max_len={room}"
    others = "windows or skip" if getattr(datamodule, "site", None) == "residue" else "skip"
    return f"Say data.max_len={room} with data.over_long=truncate (or {others})"


def longest(datamodule: Any) -> tuple[int, str]:
    """Tokens of the longest sequence of all splits, and what to call it: the split, and its name or number there."""
    found = [getattr(datamodule.source, "longest", (0, ""))]  # of shards, whose names nobody keeps
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
