"""What a row of a file becomes in a corpus: the one thing in which molecules and proteins differ."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple


class Written(NamedTuple):
    """One row: what the file calls it, empty where it has no name, and what it holds."""

    name: str
    text: str


class Finding(NamedTuple):
    """What became of a row.

    Attributes:
        text: as it enters the corpus; null where it does not.
        reason: why not: one word, or one word, a colon and the details.
        changes: what was done to it that is worth counting.
    """

    text: str | None
    reason: str = ""
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind(ABC):
    """How rows of one kind are read, made canonical and cut into tokens. Small: it travels to every process.

    Attributes:
        noun, nouns: what one is called, and several: also the keys of their numbers in a manifest.
        step: what making them canonical is called.
        splits: training, then what is held out.
        has_names: whether rows have names, by which a report can call them.
        min_len, max_len: tokens of a sequence, without its ends.
    """

    min_len: int
    max_len: int

    noun: ClassVar[str]
    nouns: ClassVar[str]
    step: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    has_names: ClassVar[bool]

    @abstractmethod
    def check(self, paths: Sequence[str]) -> None:
        """Read the first row of each file, so that a wrong one is not found out after hours."""

    @abstractmethod
    def read(self, path: str) -> Iterator[Written]:
        """Every row of a file, in its order."""

    @abstractmethod
    def files(self, path: str) -> list[str]:
        """What an input consists of: the file itself, or the files of a data base."""

    @abstractmethod
    def num_rows(self, path: str) -> int | None:
        """About how many rows an input has, for the progress bar; null where only reading would tell."""

    @abstractmethod
    def examine(self, texts: Sequence[str]) -> Iterator[Finding]:
        """Some rows, one after the other."""

    @abstractmethod
    def count(self, texts: Sequence[str]) -> Counter[str]:
        """How often each token occurs."""

    @abstractmethod
    def vocabulary(self, counts: Counter[str]) -> list[str]:
        """Tokens in the order of their ids, for a corpus with these counts."""

    @abstractmethod
    def tokenizer(self, vocabulary: str) -> Any:
        """That of a vocabulary's file."""

    def problems(self, tokenizer: Any, texts: Sequence[str]) -> list[str | None]:
        """Why the tokenizer cannot write each of some canonical rows; null where it can."""
        return tokenizer.problems(texts)

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What a manifest says of it."""

    @abstractmethod
    def vocabulary_described(self, vocabulary: list[str]) -> dict[str, Any]:
        """What a manifest says of the vocabulary."""
