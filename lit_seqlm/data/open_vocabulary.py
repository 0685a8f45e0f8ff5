"""Words that a model's vocabulary does not hold: ids when first seen, and what they are worth.

A closed model gives all of them one probability, that of ``<unk>``. A cache can tell them apart once
each has an id, and a base measure q shares out the mass of ``<unk>``, so that words of any spelling
have a probability: p(w) = p_static(w) for known words, p_static(<unk>) q(w) for new ones and for a
literal ``<unk>`` in the text.
"""

# N = tokens of a stream, W = known and new words, U = unknown words (new ones and <unk>), C = documents

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.spelling import SpellingModel, by_bytes
from lit_seqlm.tokenizer.word import EOS, UNK, WordTokenizer

KNOWN, FIRST, REPEAT = 0, 1, 2


@dataclass(frozen=True)
class OpenStream:
    """A split as an open vocabulary sees it.

    `words_N` int32 holds the model's ids for the words it knows, and ``vocab_size``,
    ``vocab_size + 1``, ... for `new_words`, in the order of first sight in this split alone.
    """

    words_N: np.ndarray
    novelty_N: np.ndarray  # int8: `KNOWN`, `FIRST` or `REPEAT`
    new_words: list[str]
    vocab_size: int
    unknown_id: int | None

    @property
    def num_new_words(self) -> int:
        return len(self.new_words)

    def closed(self) -> np.ndarray:
        """What the model reads, ``<unk>`` for every new word: int32 (N,)."""
        if not self.new_words:
            return self.words_N
        assert self.unknown_id is not None, "a vocabulary without <unk> refuses new words"
        return np.where(self.words_N < self.vocab_size, self.words_N, np.int32(self.unknown_id))


def open_stream(lines: Iterable[str], tokenizer: WordTokenizer) -> OpenStream:
    """Encode lines once more, with ids for new words; only one copy of each new word is held."""
    words_N, new_words = tokenizer.encode_open(lines)
    novelty_N = novelty(words_N, len(tokenizer))
    return OpenStream(words_N, novelty_N, new_words, len(tokenizer), tokenizer.index.get(UNK))


def novelty(words_N: np.ndarray, vocab_size: int) -> np.ndarray:
    """Whether a word is known, new, or new and seen before in the stream: int8 (N,).

    A literal ``<unk>`` is a known word. New ids rise in the order of first sight, so a first
    occurrence is one that exceeds all before it.
    """
    highest_N = np.maximum.accumulate(np.concatenate([[vocab_size - 1], words_N]))
    novelty_N = np.where(words_N < vocab_size, KNOWN, REPEAT).astype(np.int8)
    novelty_N[words_N > highest_N[:-1]] = FIRST
    return novelty_N


def document_starts(
    documents: Iterable[list[str]], tokenizer: WordTokenizer, num_tokens: int
) -> np.ndarray:
    """Where each document begins in a stream of N tokens: int64 (C,), rising from 0.

    Documents without lines begin nowhere and are left out.
    """
    lengths = [sum(len(tokenizer.split(line)) for line in document) for document in documents]
    ends = np.cumsum([length for length in lengths if length], dtype=np.int64)
    assert (ends[-1] if len(ends) else 0) == num_tokens, "a split's documents are its lines"
    return np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]


class BaseMeasure(ABC):
    """The share q(w) of p_static(<unk>) that a word outside the vocabulary gets.

    `prepare` once per stream, then `log_share` for any part of it.
    """

    def __init__(self) -> None:
        self._log_share_W = np.zeros(0)

    def prepare(self, vocabulary: list[str], stream: OpenStream) -> None:
        """Look at the model's vocabulary and at the words that the stream adds.

        Raises:
            UserError: for a model without ``<unk>``, which has nothing to share out.
        """
        if stream.unknown_id is None:
            raise UserError(
                f"an open vocabulary needs a model with {UNK}, and this model's vocabulary of "
                f"{len(vocabulary):,} words has none. Train it with data.tokenizer.min_count=2, or "
                "evaluate with its closed vocabulary."
            )
        log_share_U = self._log_prob([UNK, *stream.new_words], vocabulary)
        self._log_share_W = np.zeros(stream.vocab_size + stream.num_new_words)
        self._log_share_W[stream.unknown_id] = log_share_U[0]
        self._log_share_W[stream.vocab_size :] = log_share_U[1:]

    def log_share(self, words_N: np.ndarray) -> np.ndarray:
        """0 for known words, log q for new words and ``<unk>``: float64 (N,)."""
        assert len(self._log_share_W), "prepare comes first"
        return self._log_share_W[words_N]

    @abstractmethod
    def _log_prob(self, words: list[str], vocabulary: list[str]) -> np.ndarray:
        """Log q of words that are ``<unk>`` or not in the vocabulary, float64 (U,)."""


class UniformBase(BaseMeasure):
    """The same share for all: q = 1 / (M + 1), for M new words and ``<unk>``.

    Args:
        num_words: M, fixed in advance; null for the number of new words in the stream. The latter
            knows the test text's vocabulary, as the paper's 1 / |V| does (Grave et al. 2017).

    Raises:
        UserError: in `prepare`, if the stream has more new words than `num_words`.
    """

    def __init__(self, num_words: int | None):
        super().__init__()
        if num_words is not None and num_words < 0:
            raise UserError(f"task.num_words={num_words}: 0 or more, or null to count them")
        self.num_words = num_words

    def _log_prob(self, words: list[str], vocabulary: list[str]) -> np.ndarray:
        found = len(words) - 1
        if self.num_words is not None and found > self.num_words:
            raise UserError(
                f"task.num_words={self.num_words:,}, but the stream has {found:,} words "
                f"outside the model's vocabulary. Say task.num_words={found} or more, or "
                "null to count them."
            )
        num_words = found if self.num_words is None else self.num_words
        return np.full(len(words), -math.log(num_words + 1))


class CharacterBase(BaseMeasure):
    """By spelling: q(w) = s(w) / (1 - s(known words)), s a character model of the vocabulary's types.

    It knows nothing of the stream. ``<unk>`` is one of the types, so a literal one is not charged
    for its odd spelling. The known words' mass is taken out of s, so q sums to one over ``<unk>``
    and all strings that the vocabulary does not hold.

    Args:
        order: characters that one probability looks at (`SpellingModel`).
    """

    def __init__(self, order: int):
        super().__init__()
        if order < 1:
            raise UserError(f"order={order}: at least 1 character")
        self.order = order

    def _log_prob(self, words: list[str], vocabulary: list[str]) -> np.ndarray:
        types = [word for word in vocabulary if word != EOS]
        model = SpellingModel(types, self.order, by_bytes)
        known = math.fsum(math.exp(model.log_prob(word)) for word in vocabulary if word != UNK)
        return np.array([model.log_prob(word) for word in words]) - math.log1p(-known)
