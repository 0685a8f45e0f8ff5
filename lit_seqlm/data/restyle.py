"""Real text in another text's convention, so that a model trained on one can read the other as a stream."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby

import numpy as np

from lit_seqlm.data.corpus import SPLITS, TextSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import UNK

STYLES, ORDERS = ("kept", "lower", "ptb", "wikitext"), ("documents", "sentences")
STOPS, CLOSERS = frozenset(".?!"), frozenset({'"', "'", "''", ")", "]"})
PTB_SIGNS = {"$": "$", "&": "&", "#": "#", "%": "N"}  # of all signs, what Mikolov's text keeps

RAW = re.compile(r"""[^\W_][,;:?!)"\]]+(?=\s|$)|[^\W_]\.["')\]]*\s*$""")  # a sign glued to its word
SIGN_ALONE = re.compile(r"(?:^|\s)[,.?!](?:\s|$)")
EDGES = re.compile(r"(\W*)(.*\w)(\W*)", re.DOTALL)
SIGN = re.compile(r"\.+|-+|`+|'+|\W")
ABBREVIATION = re.compile(  # before its last period; J and U.S too
    r"(?i:mr|mrs|ms|messrs|dr|prof|rev|st|jr|sr|gov|gen|lt|col|sgt|capt|sens?|reps?|inc|corp|cos?|ltd|bros|dept|vs|cf|pp|ph|ave"
    r"|jan|feb|aug|sept|oct|nov|dec|calif|conn|fla|ga|tenn|tex|wis|mich|minn|ariz|okla|colo)|Nos?|(?:[^\W\d_]\.)*[^\W\d_]"
)
CLITIC = re.compile(r"(.+?)(n't|'(?:s|re|ve|m|ll|d))", re.IGNORECASE)
NUMBER = re.compile(r"\d[\d.,/:-]*")
INNER_HYPHEN = re.compile(r"(?<=\w)-(?=\w)")
INNER_POINT = re.compile(r"(?<=\d)([.,])(?=\d)")
INNER_APOSTROPHE = re.compile(r"(?<=\w)'(?=\w)")
INNER_SIGN = re.compile(r"""(?<!@)([,;:!?"()\[\]{}$%&/*+=#|\\~^])(?!@)""")


class Restyled:
    """Another source's text in the convention and the order that are asked for.

    A document-ordered stream and its sentence-shuffled form hold the same tokens, so their
    perplexities can be compared. A sentence ends after a token ``.``, ``?`` or ``!``, or in raw text
    after such a sign that no abbreviation explains. Every line keeps its one ``<eos>``: it belongs
    to its last sentence and moves with it, so a line of the shuffled text is whatever stands
    between two such sentences. This counting gives the cache ceilings of the shuffled WikiText-2.

    Args:
        source: the text as it is.
        style: ``kept``; ``lower`` for lower case and nothing else; ``ptb`` for Mikolov's Penn
            Treebank (lower case, no punctuation, numbers are ``N``, ``do n't``, a sentence a line);
            ``wikitext`` for WikiText (signs apart, ``@-@``, ``@,@``, ``@.@``, ``'s``, case kept).
            Text that is tokenised already keeps its tokens' edges.
        order: ``documents``, or ``sentences`` for all sentences of a split, permuted.
        blank_lines: ``kept``, or ``dropped`` with their ``<eos>``.
        max_tokens: of each split, a line's ``<eos>`` among them; the split is cut after the last
            line that fits, before sentences are permuted. Null: all.
        seed: of the permutation.

    Raises:
        UserError: for options that cannot be; in `lines` and `documents`, where the first line
        alone is longer than `max_tokens`.
    """

    def __init__(
        self,
        source: TextSource,
        style: str,
        order: str,
        blank_lines: str,
        max_tokens: int | None,
        seed: int,
    ):
        for key, value, choices in (
            ("style", style, STYLES),
            ("order", order, ORDERS),
            ("blank_lines", blank_lines, ("kept", "dropped")),
        ):
            if value not in choices:
                raise UserError(f"data.source.{key}={value}: choose {' or '.join(choices)}")
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"data.source.max_tokens={max_tokens}: at least 1, or null for all")
        self.source, self.name = source, source.name
        self.style, self.order, self.blank_lines = style, order, blank_lines
        self.max_tokens, self.seed = max_tokens, seed

    def fetch(self) -> None:
        self.source.fetch()

    def digest(self) -> str:
        return self.source.digest()  # the options say the rest

    def lines(self, split: str) -> Iterator[str]:
        if self.order == "sentences":
            return self._shuffled(split)
        return (line for _, line in self._numbered(split, [self.source.lines(split)]))

    def documents(self, split: str) -> Iterator[list[str]]:
        """The source's documents without those that lost all lines; shuffled sentences are one document."""
        if self.order == "sentences":
            yield list(self._shuffled(split))
            return
        numbered = self._numbered(split, self.source.documents(split))
        for _, lines in groupby(numbered, key=lambda pair: pair[0]):
            yield [line for _, line in lines]

    def _numbered(
        self, split: str, documents: Iterable[Iterable[str]]
    ) -> Iterator[tuple[int, str]]:
        """Lines in the new style, each with its document's number, as many as may be."""
        num_tokens = 0
        for number, document in enumerate(documents):
            for line in document:
                for restyled in self._restyle(line):
                    if self.blank_lines == "dropped" and not restyled.strip():
                        continue
                    size = len(restyled.split()) + 1
                    if self.max_tokens is not None and num_tokens + size > self.max_tokens:
                        if not num_tokens:
                            raise UserError(
                                f"data.source.max_tokens={self.max_tokens}: the first line of the "
                                f"{split} text alone has {size} tokens. Say data.source.max_tokens="
                                f"{size} or more, or null."
                            )
                        return
                    num_tokens += size
                    yield number, restyled

    def _restyle(self, line: str) -> Iterator[str]:
        if self.style == "kept":
            yield line
        elif self.style == "lower":
            yield line.lower()
        elif self.style == "wikitext":
            yield as_wikitext(line) + "\n"
        else:
            yield from (sentence + "\n" for sentence in as_ptb(line))

    def _shuffled(self, split: str) -> Iterator[str]:
        """Sentences permuted, then joined up to the next one that ends a line."""
        sentences: list[str] = []
        for _, line in self._numbered(split, [self.source.lines(split)]):
            cut = [line.split()] if self.style == "ptb" else split_sentences(line)
            sentences += [" ".join(words) for words in cut] or [""]
            sentences[-1] += "\n"
        rng = np.random.default_rng([self.seed, SPLITS.index(split)])
        order = rng.permutation(len(sentences)).tolist()
        unfinished = next(
            (n for n, i in enumerate(reversed(order)) if sentences[i].endswith("\n")), 0
        )
        order = order[len(order) - unfinished :] + order[: len(order) - unfinished]
        words: list[str] = []
        for number in order:
            words.append(sentences[number])
            if words[-1].endswith("\n"):
                yield " ".join(words)
                words = []


def split_sentences(line: str) -> list[list[str]]:
    """The words of a line as they are, cut after each sentence; more stops in a row stay with it."""
    return [words for words, _ in _sentences(line)]


def as_wikitext(line: str) -> str:
    """A line as WikiText writes it; a line of WikiText is as good as unchanged."""
    return " ".join(part for _, pieces in _sentences(line) for p in pieces for part in _marked(p))


def as_ptb(line: str) -> list[str]:
    """The sentences of a line as Mikolov's Penn Treebank writes them; at least one, maybe empty."""
    line = re.sub(r" @([-,.])@ ", r"\1", line)
    line = re.sub(r"(?<=\w)n 't\b", " n't", re.sub(r"\b([OD]) '(?=[A-Z])", r"\1'", line))
    sentences = []
    for _, pieces in _sentences(line):
        words: list[str] = []
        for piece in pieces:
            if piece == "'" and words and words[-1].endswith("s"):
                words.append(piece)  # the banks ' loans
            elif piece in PTB_SIGNS:
                words.append(PTB_SIGNS[piece])
            elif any(char.isalnum() for char in piece):
                words += _plain(piece)
        if words:
            sentences.append(" ".join(words))
    return sentences or [""]


def _sentences(line: str) -> list[tuple[list[str], list[str]]]:
    """(words, pieces) of each sentence, where pieces are the words without the signs at their edges."""
    is_raw = bool(RAW.search(line)) and not SIGN_ALONE.search(line)
    words = line.split()
    found: list[tuple[list[str], list[str]]] = []
    is_open = False
    for number, word in enumerate(words, start=1):
        pieces = _pieces(word, number == len(words)) if is_raw else (word,)
        stops = _stops(pieces)
        if not is_open and not (found and stops and len(pieces) == 1):
            found.append(([], []))
        found[-1][0].append(word)
        found[-1][1].extend(pieces)
        is_open = not stops
    return found


def _stops(pieces: tuple[str, ...]) -> bool:
    for piece in reversed(pieces):
        if piece not in CLOSERS:
            return piece in STOPS
    return False


@lru_cache(maxsize=1 << 17)
def _pieces(word: str, is_last: bool) -> tuple[str, ...]:
    """A word of raw text and the signs at its edges, each apart."""
    if word == UNK:
        return (word,)
    edges = EDGES.fullmatch(word)
    if edges is None:
        return tuple(SIGN.findall(word))
    before, core, after = edges.groups()
    if before.endswith(("'", ".")):  # '80s and .69 are words
        before, core = before[:-1], before[-1] + core
    if after.startswith(".") and not after.startswith("..") and ABBREVIATION.fullmatch(core):
        core += "."
        after = after if is_last else after[1:]  # at the end of a line it is both
    return (*SIGN.findall(before), core, *SIGN.findall(after))


@lru_cache(maxsize=1 << 17)
def _marked(piece: str) -> tuple[str, ...]:
    """One piece with WikiText's marks for what stood inside a word."""
    if piece == UNK:
        return (piece,)
    if piece in ("``", "''"):
        return ('"',)
    text = INNER_HYPHEN.sub(" @-@ ", piece)
    text = INNER_POINT.sub(r" @\1@ ", text)
    text = INNER_SIGN.sub(r" \1 ", INNER_APOSTROPHE.sub(" '", text))
    if len(piece) > 1 and text.endswith("'"):
        text = text[:-1] + " '"
    return tuple(text.split())


@lru_cache(maxsize=1 << 17)
def _plain(piece: str) -> tuple[str, ...]:
    """One piece in lower case, a number as N, ``n't`` and ``'s`` apart; a word half unknown is unknown."""
    if piece == "N" or NUMBER.fullmatch(piece):
        return ("N",)
    if UNK in piece:
        return (UNK,)
    if piece.lower() == "cannot":
        return ("can", "not")
    parts = CLITIC.fullmatch(piece)
    return tuple(part.lower() for part in (parts.groups() if parts else (piece,)))
