"""What follows from the mean loss of a whole split."""

import logging
import math
from typing import Any

from lit_seqlm.metrics.perplexity import exp

log = logging.getLogger(__name__)

MANY_UNKNOWN = 0.1  # of a text: its perplexity says little then


def exact_numbers(
    nll: float, scored: float, stage: str, split: str, datamodule: Any, new_words: str = "unknown"
) -> dict[str, float]:
    """Shares, bits per byte and the papers' denominator, named ``stage/...``; nothing for a split scored in part."""
    whole = len(datamodule.streams[split]) - 1
    if scored != whole:
        log.warning("%s: only %d of %d predictions were scored", split, scored, whole)
        return {}
    total, unknown = nll * scored, datamodule.num_replaced[split] / (whole + 1)
    if unknown > MANY_UNKNOWN and new_words == "unknown":
        log.warning("%s: %.0f %% of its words are <unk> to this model", split, 100 * unknown)
    # The papers' codes divide N - 1 losses by N; to be compared with their numbers only.
    values = {"out_of_vocabulary": unknown, "ppl_official_denominator": exp(total / (scored + 1))}
    if size := datamodule.num_bytes(split):
        values["bits_per_byte"] = total / math.log(2) / size
    return {f"{stage}/{name}": value for name, value in values.items()}
