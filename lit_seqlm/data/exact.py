"""What follows from the mean loss of a whole text."""

import logging
import math

from lit_seqlm.metrics.perplexity import exp

log = logging.getLogger(__name__)

MANY_UNKNOWN = 0.1  # of a text: its perplexity says little then


def text_numbers(
    split: str,
    nll: float,
    scored: float,
    whole: int,
    unknown: float,
    size: int | None,
    new_words: str,
) -> dict[str, float]:
    """Shares, bits per byte and the papers' denominator; nothing for a split scored in part.

    Args:
        nll: mean of the scored predictions, in nats.
        whole: predictions of the split.
        unknown: share of its words that the model does not know.
        new_words: what an unknown word is: ``unknown``, or a word of its own.
        size: bytes that the predictions account for; null if they do not.
    """
    if scored != whole:
        log.warning("%s: only %d of %d predictions were scored", split, scored, whole)
        return {}
    if unknown > MANY_UNKNOWN and new_words == "unknown":
        log.warning("%s: %.0f %% of its words are <unk> to this model", split, 100 * unknown)
    # The papers' codes divide N - 1 losses by N; to be compared with their numbers only.
    total = nll * scored
    values = {"out_of_vocabulary": unknown, "ppl_official_denominator": exp(total / (scored + 1))}
    if size:
        values["bits_per_byte"] = total / math.log(2) / size
    return values
