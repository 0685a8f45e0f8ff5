"""One split as an evaluation reads it: which words there are, which are new, where documents begin."""

# N = tokens of the stream, W = known and new words

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.data.open_vocabulary import BaseMeasure, CharacterBase, UniformBase
from lit_seqlm.errors import UserError

NEW_WORDS = ("unknown", "uniform", "character")
SPELLING_ORDER = 5  # characters that the model of spellings looks at


@dataclass
class Reading:
    """What `Evaluate` needs to know of a split.

    Attributes:
        words_N: the stream; words outside the model's vocabulary have ids above it, unless they are ``<unk>``.
        log_share_W: of p_static(<unk>), what each word gets; null where nothing is shared out.
        num_words: known and new.
        novelty_N: 0 known, 1 a new word's first occurrence, 2 a later one.
        starts: token at which each document begins.
    """

    split: str
    new_words: str
    words_N: Tensor
    log_share_W: Tensor | None
    num_words: int
    novelty_N: np.ndarray
    starts: np.ndarray

    @property
    def num_predictions(self) -> int:
        return len(self.words_N) - 1

    def predicted(self, start: int, count: int) -> Tensor:
        """The words of so many predictions, from the `start`-th on; the first token is context only."""
        return self.words_N[start + 1 : start + 1 + count].long()

    def log_share(self, words_N: Tensor) -> Tensor:
        if self.log_share_W is None:
            return torch.zeros(len(words_N), dtype=torch.float64, device=words_N.device)
        return self.log_share_W.to(words_N.device)[words_N]


def check_new_words(new_words: str, num_words: int | None) -> None:
    """Raise UserError for an unknown word, or a number that nothing reads."""
    if new_words not in NEW_WORDS:
        raise UserError(f"task.new_words={new_words}: choose one of {', '.join(NEW_WORDS)}.")
    if num_words is not None and new_words != "uniform":
        raise UserError(
            f"task.num_words={num_words} is read by task.new_words=uniform alone, not by {new_words}."
        )


def read(datamodule: Any, split: str, new_words: str, num_words: int | None) -> Reading:
    """A split of a datamodule.

    Args:
        new_words: ``unknown``, or the base measure that shares out p(<unk>): ``uniform`` or ``character``.
        num_words: new words that ``uniform`` counts on; null: those of the split, which it then knows in advance.

    Raises:
        UserError: for a model without ``<unk>``, or more new words than were counted on.
    """
    starts = datamodule.document_starts(split)
    if new_words == "unknown":
        stream_N = datamodule.streams[split]
        known_N = np.zeros(len(stream_N), dtype=np.int8)
        return Reading(split, new_words, stream_N, None, len(datamodule.tokenizer), known_N, starts)
    stream = datamodule.open_stream(split)
    base: BaseMeasure = (
        UniformBase(num_words) if new_words == "uniform" else CharacterBase(SPELLING_ORDER)
    )
    base.prepare(datamodule.tokenizer.vocabulary, stream)
    return Reading(
        split,
        new_words,
        torch.from_numpy(stream.words_N),
        torch.from_numpy(base.log_share(np.arange(stream.vocab_size + stream.num_new_words))),
        stream.vocab_size + (num_words or stream.num_new_words),
        stream.novelty_N,
        starts,
    )
