"""Rows of a file with named columns, one after the other, in constant memory: CSV, TSV, parquet."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from lit_seqlm.errors import UserError, did_you_mean

DELIMITERS = {".csv": ",", ".tsv": "\t"}
BATCH = 8_192  # rows of a parquet file read at once


class TextRow(NamedTuple):
    """One row.

    Attributes:
        number: as a person counts, from 1; the line of column names is not counted.
        text: of the column asked for, without white space around it; empty where the field is.
        columns: the other columns asked for. Text, but for parquet, which has types.
    """

    number: int
    text: str
    columns: dict[str, Any]


class Ahead:
    """Lines of a stream whose first was read already."""

    def __init__(self, first: str, rest: IO[str]):
        self.first, self.rest = first, rest

    def __iter__(self) -> Iterator[str]:
        if self.first:
            yield self.first
        yield from self.rest


@contextmanager
def opened(path: str) -> Iterator[IO[str]]:
    """A text file; its faults become messages. A sign that is not UTF-8 becomes U+FFFD, so its row is reported."""
    try:
        with open(path, "rb") as raw:
            is_zipped = path.lower().endswith(".gz")
            binary: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_zipped else raw  # type: ignore[assignment]
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is a broken or cut-off gzip file ({error}). Fetch it again."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def read_table(
    file: IO[str] | Ahead,
    delimiter: str,
    path: str,
    column: str,
    others: Sequence[str] | None,
    optional: Sequence[str] = (),
) -> Iterator[TextRow]:
    """Rows of an open table, whose first line names its columns.

    Args:
        path: of the file, for messages.
        column: of the text.
        others: columns to keep; null keeps all.
        optional: further columns to keep, where there are such.

    Raises:
        UserError: for other columns, and for a line that is no row.
    """
    lines = csv.reader(
        iter(file), delimiter=delimiter, strict=True
    )  # or an open quote swallows rows
    number = 0
    try:
        names = [name.strip() for name in next(lines, [])]
        place, kept = _places(names, path, column, others, optional)
        for number, fields in enumerate(lines, start=1):
            if len(fields) > len(names):
                raise UserError(
                    f"{path}, row {number}: {len(fields)} fields under {len(names)} column names. "
                    "Put quotes around a field that holds the separator."
                )
            fields += [""] * (len(names) - len(fields))
            columns = {name: fields[i] for name, i in kept.items()}
            yield TextRow(number, fields[place].strip(), columns)
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1}: not a readable table ({error}).") from None


def read_parquet(
    path: str, column: str, others: Sequence[str] | None, optional: Sequence[str] = ()
) -> Iterator[TextRow]:
    """As `read_table`."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            f"{path}: reading parquet needs pyarrow (pip install pyarrow). CSV does not."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _, kept = _places(names, path, column, others, optional)
            number = 0
            for batch in file.iter_batches(batch_size=BATCH, columns=[column, *kept]):
                for values in batch.to_pylist():
                    number += 1
                    text = values.pop(column)
                    yield TextRow(number, "" if text is None else str(text).strip(), values)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as parquet ({reason}).") from None


def _places(
    names: Sequence[str],
    path: str,
    column: str,
    others: Sequence[str] | None,
    optional: Sequence[str],
) -> tuple[int, dict[str, int]]:
    """Where the text stands, and the other columns that are kept."""
    wanted = [*(names if others is None else others), *(one for one in optional if one in names)]
    for name in (column, *wanted):
        if name not in names:
            raise UserError(
                f"{Path(path).name} has no column {name!r}. "
                + (_nearest(name, names) if any(names) else "It is empty.")
            )
        if list(names).count(name) > 1 and (others is not None or name == column):
            raise UserError(
                f"{Path(path).name} has {list(names).count(name)} columns named {name!r}."
            )
    return list(names).index(column), {n: list(names).index(n) for n in wanted if n != column}


def _nearest(name: str, names: Sequence[str]) -> str:
    """What to say instead: another case, another separator, or another name."""
    if len(names) == 1 and (sign := next((s for s in ";\t|" if s in names[0]), None)):
        return f"Its columns are separated by {sign!r}, not by ','."
    same = [other for other in names if other.lower() == name.lower()]
    if same:
        return f"Did you mean {same[0]}? Accepted: {', '.join(names)}."
    return did_you_mean(name, names)
