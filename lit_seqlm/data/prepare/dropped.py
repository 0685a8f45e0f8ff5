"""Every row that did not enter the corpus, with the reason."""

import gzip
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np


class Drop(NamedTuple):
    """A row that was dropped: its place in the whole input, why, and its name where it has one."""

    order: int
    reason: str
    name: str = ""


class DropReport:
    """A gzipped table ``file,row,reason``, and the number of rows for each reason's first word.

    First what was refused while reading, in the order of the input; then, by hash, repeated sequences
    and those with tokens outside the vocabulary.

    Args:
        path: of the table.
        names: of the input files, in their order.
        has_names: whether rows have names, which then stand before the reason.
    """

    def __init__(self, path: Path, names: Sequence[str], has_names: bool):
        self.names, self.has_names = names, has_names
        self.starts: list[int] = []  # place of each file's first row in the whole input
        self.counts: Counter[str] = Counter()
        # Without a time and a name inside, so that the same content gives the same bytes.
        self._raw = path.open("wb")
        zipped = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
        self._file = io.TextIOWrapper(zipped, encoding="utf-8", newline="\n")
        self._file.write("file,row,name,reason\n" if has_names else "file,row,reason\n")

    def __enter__(self) -> "DropReport":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._raw.close()

    def begin_file(self, first: int) -> None:
        """The next file's rows begin at this place in the whole input."""
        self.starts.append(first)

    def add(self, drops: Iterable[Drop]) -> None:
        for order, reason, name in drops:
            self.counts[reason.partition(":")[0]] += 1
            file = int(np.searchsorted(self.starts, order, side="right")) - 1
            row = order - self.starts[file] + 1
            called = (_quoted(name),) if self.has_names else ()
            fields = (_quoted(self.names[file]), str(row), *called, _quoted(reason))
            self._file.write(",".join(fields) + "\n")


def _quoted(text: str) -> str:
    plain = not any(sign in text for sign in ',"\n')
    return text if plain else '"' + text.replace('"', '""') + '"'
