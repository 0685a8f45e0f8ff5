"""Words separated by white space, ranked by frequency."""

from array import array
from collections.abc import Iterable

import numpy as np

from lit_seqlm.errors import UserError

EOS, UNK = "<eos>", "<unk>"


class WordTokenizer:
    """Word ids in the order (-count, word), so that adaptive softmax clusters go by frequency.

    Args:
        lowercase: fold case before anything else.
        max_size: keep this many words, ``<eos>`` and ``<unk>`` among them (null: all); the rest
            become ``<unk>``.
        min_count: keep words seen at least this often in the training text; the rest become
            ``<unk>``.
        vocabulary: the words themselves; filled in by `fit`, or from a checkpoint.
    """

    def __init__(
        self,
        lowercase: bool,
        max_size: int | None,
        min_count: int,
        vocabulary: list[str] | None = None,
    ):
        if max_size is not None and max_size < 3:
            raise UserError(
                f"tokenizer.max_size={max_size}: it must leave room for {EOS}, {UNK} and a word."
            )
        self.lowercase, self.max_size, self.min_count = lowercase, max_size, min_count
        self.num_replaced = 0  # words of the last text encoded that became <unk>
        self.vocabulary: list[str] = []
        self.index: dict[str, int] = {}
        if vocabulary is not None:
            self._set(vocabulary)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def fit(self, lines: Iterable[str]) -> None:
        """Build the vocabulary from training text; each line's ``<eos>`` counts as a word."""
        self.fit_encode(lines)

    def fit_encode(self, lines: Iterable[str]) -> np.ndarray:
        """Build the vocabulary and encode the same text, reading it once.

        Returns:
            int32 ids (N,), as `encode` would give them.
        """
        numbering = _Numbering()
        ids = self._pack(lines, numbering)
        counts = np.bincount(ids, minlength=len(numbering)).tolist()
        self._rank(dict(zip(numbering, counts, strict=True)))
        unknown = self.index.get(UNK, -1)
        renumbered = np.array([self.index.get(word, unknown) for word in numbering], dtype=np.int32)
        return np.take(renumbered, ids, out=ids, mode="clip") if len(ids) else ids

    def split(self, line: str) -> list[str]:
        """The tokens of one line, its ``<eos>`` included."""
        return [*(line.lower() if self.lowercase else line).split(), EOS]

    def encode(self, lines: Iterable[str], where: str = "the text") -> np.ndarray:
        """Ids of all lines in one int32 array (N,).

        Args:
            lines: of text; a single string is one line.
            where: names the text if a word is refused.

        Raises:
            UserError: at the first word outside the vocabulary, if it has no ``<unk>``.
        """
        lines = [lines] if isinstance(lines, str) else lines
        table = _Lookup(self.index, self.index.get(UNK), where)
        ids = self._pack(lines, table)
        self.num_replaced = table.num_replaced
        return ids

    def encode_open(self, lines: Iterable[str]) -> tuple[np.ndarray, list[str]]:
        """Ids of all lines where each word outside the vocabulary has an id of its own.

        Returns:
            int32 ids (N,), and the new words in the order of first sight: the first has the id
            ``len(self)``, the next one more.
        """
        table = _Numbering(self.index)
        ids = self._pack(lines, table)
        return ids, list(table)[len(self.index) :]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join("\n" if (word := self.vocabulary[i]) == EOS else word for i in ids)

    def state_dict(self) -> dict[str, object]:
        return {"vocabulary": list(self.vocabulary)}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        self._set(state["vocabulary"])

    def _pack(self, lines: Iterable[str], table: "_Table") -> np.ndarray:
        """Four bytes a token: no list of all words exists, whatever the length of the text."""
        ids, lookup = array("i"), table.__getitem__
        for table.line, line in enumerate(lines, start=1):
            ids.extend(map(lookup, self.split(line)))
        return np.frombuffer(ids, dtype=np.int32) if ids else np.empty(0, dtype=np.int32)

    def _rank(self, counts: dict[str, int]) -> None:
        words = [w for w, n in counts.items() if n >= self.min_count and w not in (EOS, UNK)]
        words.sort(key=lambda word: (-counts[word], word))
        has_unknown = len(words) + (EOS in counts) < len(counts)
        if self.max_size is not None and len(words) + 1 + has_unknown > self.max_size:
            words, has_unknown = words[: self.max_size - 2], True
        kept = {word: counts[word] for word in (*words, EOS) if word in counts}
        if has_unknown:
            kept[UNK] = sum(counts.values()) - sum(kept.values())
        self._set(sorted(kept, key=lambda word: (-kept[word], word)))

    def _set(self, vocabulary: list[str]) -> None:
        self.vocabulary = list(vocabulary)
        self.index = {word: i for i, word in enumerate(self.vocabulary)}


class _Table(dict[str, int]):
    """From words to ids; knows the line it is asked about."""

    line = 0


class _Numbering(_Table):
    """Gives each new word the next number, after those that it begins with."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number


class _Lookup(_Table):
    """A finished vocabulary: words outside it are unknown, or an error."""

    def __init__(self, index: dict[str, int], unknown: int | None, where: str):
        super().__init__(index)
        self.unknown, self.where, self.num_replaced = unknown, where, 0

    def __missing__(self, word: str) -> int:
        if self.unknown is None:
            raise UserError(
                f"{self.where}, line {self.line}: {word!r} is not in the vocabulary of "
                f"{len(self):,} words, which has no {UNK}. Use the text's own vocabulary, or train "
                "with data.tokenizer.min_count=2 to have one."
            )
        self.num_replaced += 1
        return self.unknown
