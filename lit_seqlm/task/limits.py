"""What a limit on batches leaves unscored, told and recorded."""

import logging
from collections.abc import Sequence
from typing import Any

import lightning
import torch

from lit_seqlm.task.ranks import total

log = logging.getLogger(__name__)

CHOICE = "valid, to choose the best weights"


def scored_in_part(
    trainer: lightning.Trainer, datamodule: Any, splits: Sequence[str]
) -> dict[str, dict[str, str]]:
    """For a card: of each split that was not scored as a whole, how many rows were; empty where there is none.

    Loaders of exact scores go by length, so these are the shortest rows, and no sample of the split. All processes
    must call it, after a fit.
    """
    limits = [(CHOICE, "valid", "val"), *((split, split, "test") for split in splits)]
    found = {}
    for what, split, kind in limits:
        share, key = datamodule.exact_dataloader(split).share, f"limit_{kind}_batches"
        limit = getattr(trainer, key)
        most = limit if isinstance(limit, int) else int(len(share) * limit)
        own = sum(map(len, share.batches[: min(most, share.num_scored)]))
        scored = int(total(torch.tensor(own, device=trainer.strategy.root_device)))
        num_rows = len(datamodule.tables[split])
        if scored < num_rows:
            found[what] = f"{scored} of {num_rows} rows, the shortest (trainer.{key}={limit})"
    for what, said in found.items():
        log.warning("%s: scored in part, so its numbers are not the split's: %s", what, said)
    return {"scored_in_part": found} if found else {}
