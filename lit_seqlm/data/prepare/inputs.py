"""The input as one long numbered list, and how long it is."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pooch

from lit_seqlm.data.chemistry.rows import STDIN, read_rows
from lit_seqlm.data.prepare.dropped import DropReport
from lit_seqlm.errors import UserError

CHUNK = 2_000  # rows handed to a process at once
PIECE = 2**22  # bytes read at once


@dataclass(frozen=True)
class Measured:
    """A file's digest, and about how many rows it has.

    The number is for the progress bar: a quoted field may hold more than one line.
    """

    sha256: str
    num_rows: int


def measure(path: str) -> Measured:
    """Read a file once or twice; that is cheap beside what follows.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return Measured(pooch.file_hash(path), _count_rows(path))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}).") from None


def _count_rows(path: str) -> int:
    if path.lower().endswith(".parquet"):
        from pyarrow.parquet import read_metadata

        return read_metadata(path).num_rows
    opener = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        return sum(piece.count(b"\n") for piece in iter(partial(file.read, PIECE), b""))


def chunks(
    paths: Sequence[str], column: str, report: DropReport
) -> Iterator[tuple[int, list[str]]]:
    """The place of the first row in the whole input, and some rows of one file."""
    order = 0
    for path in paths:
        report.begin_file(order)
        rows: list[str] = []
        for row in read_rows(path, column, others=()):
            rows.append(row.smiles)
            if len(rows) == CHUNK:
                yield order, rows
                order, rows = order + CHUNK, []
        if rows:
            yield order, rows
            order += len(rows)


def check_inputs(paths: Sequence[str], column: str) -> None:
    """Read the first row of each file, so that a wrong column is not found out after hours."""
    for path in paths:
        if path != STDIN:
            next(read_rows(path, column, others=()), None)
