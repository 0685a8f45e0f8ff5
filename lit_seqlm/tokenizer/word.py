"""Words separated by white space, ranked by frequency."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from lit_seqlm.errors import UserError

EOS, UNK = "<eos>", "<unk>"


class WordTokenizer:
    """Word ids in the order (-count, word), so that adaptive softmax clusters are clusters of frequency.

    Args:
        lowercase: fold case before anything else.
        max_size: keep this many words (null: all); the rest become ``<unk>``.
        min_count: keep words seen at least this often in the training text.
        vocabulary: the words themselves; filled in by `fit`, or from a checkpoint.
    """

    def __init__(
        self, lowercase: bool, max_size: int | None, min_count: int, vocabulary: list[str] | None = None
    ):
        self.lowercase, self.max_size, self.min_count = lowercase, max_size, min_count
        self.vocabulary: list[str] = []
        if vocabulary is not None:
            self._set(vocabulary)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def fit(self, lines: Iterable[str]) -> None:
        """Build the vocabulary from training text; ``<eos>`` ends every line and counts as a word."""
        counts: Counter[str] = Counter()
        for line in lines:
            counts.update(self.split(line))
        kept = [w for w, c in counts.items() if c >= self.min_count]
        kept.sort(key=lambda word: (-counts[word], word))
        if UNK not in counts and len(kept) < len(counts):
            kept.append(UNK)
        if self.max_size is not None and len(kept) > self.max_size:
            kept = [w for w in kept if w not in (UNK, EOS)][: self.max_size - 2] + [EOS, UNK]
            kept.sort(key=lambda word: (-counts[word], word))
        self._set(kept)

    def split(self, line: str) -> list[str]:
        return [*(line.lower() if self.lowercase else line).split(), EOS]

    def encode(self, lines: Iterable[str]) -> np.ndarray:
        """Ids of all lines in one int32 array.

        Raises:
            UserError: at the first word outside the vocabulary, if it has no ``<unk>``.
        """
        index, unknown = self.index, self.index.get(UNK)
        ids: list[np.ndarray] = []
        for number, line in enumerate(lines, start=1):
            words = self.split(line)
            try:
                row = [index[word] for word in words]
            except KeyError as error:
                if unknown is None:
                    raise UserError(
                        f"line {number} has {error.args[0]!r}, which the vocabulary of {len(self)} words lacks, and it "
                        f"has no {UNK}. Use the training text's own vocabulary, or one built with tokenizer.min_count=2."
                    ) from None
                row = [index.get(word, unknown) for word in words]
            ids.append(np.array(row, dtype=np.int32))
        return np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join("\n" if (word := self.vocabulary[i]) == EOS else word for i in ids)

    def state_dict(self) -> dict[str, object]:
        return {"vocabulary": list(self.vocabulary)}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        self._set(state["vocabulary"])

    def _set(self, vocabulary: list[str]) -> None:
        self.vocabulary = list(vocabulary)
        self.index = {word: i for i, word in enumerate(self.vocabulary)}
