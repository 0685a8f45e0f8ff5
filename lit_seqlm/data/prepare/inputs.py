"""The input as one long numbered list, and how long it is."""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from lit_seqlm.data.prepare.dropped import DropReport
from lit_seqlm.data.prepare.kinds import Kind
from lit_seqlm.errors import UserError

CHUNK = 2_000  # rows handed to a process at once


@dataclass(frozen=True)
class Measured:
    """An input's digest, and about how many rows it has: for the progress bar; null where that is not known."""

    sha256: str
    num_rows: int | None


@dataclass(frozen=True)
class Chunk:
    """Some rows of one file.

    Attributes:
        first: place of the first one in the whole input.
        names, texts: of each row.
    """

    first: int
    names: list[str]
    texts: list[str]


def measure(path: str, kind: Kind) -> Measured:
    """Read a file once or twice; that is cheap beside what follows.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return Measured(_digest(kind.files(path)), kind.num_rows(path))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}).") from None


def _digest(files: Sequence[str]) -> str:
    if len(files) == 1:
        return pooch.file_hash(files[0])
    lines = (f"{Path(file).name} {pooch.file_hash(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def chunks(paths: Sequence[str], kind: Kind, report: DropReport) -> Iterator[Chunk]:
    """All rows of all files."""
    first = 0
    for path in paths:
        report.begin_file(first)
        names: list[str] = []
        texts: list[str] = []
        for row in kind.read(path):
            names.append(row.name)
            texts.append(row.text)
            if len(texts) == CHUNK:
                yield Chunk(first, names, texts)
                first, names, texts = first + CHUNK, [], []
        if texts:
            yield Chunk(first, names, texts)
            first += len(texts)
