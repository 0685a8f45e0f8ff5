"""Molecules of a file one after the other, in constant memory: CSV, TSV, SMILES lists, parquet, standard input."""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from lit_seqlm.errors import UserError, did_you_mean

STDIN = "-"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
LISTS = (".smi", ".smiles", ".ism", ".txt")
KINDS = (*DELIMITERS, *LISTS, ".parquet")
HEADERS = {
    "smiles",
    "canonical_smiles",
    "isomeric_smiles",
}  # first word of a list that is no molecule
BATCH = 8_192  # rows of a parquet file read at once


class Row(NamedTuple):
    """One molecule as it was written.

    Attributes:
        number: as a person counts, from 1; the line of column names is not counted.
        smiles: empty where the field is.
        columns: the other columns asked for. Text, but for parquet, which has types.
    """

    number: int
    smiles: str
    columns: dict[str, Any]


def read_rows(path: str, column: str, others: Sequence[str] | None = None) -> Iterator[Row]:
    """Every row of a file in its order; none is left out, blank ones and broken SMILES included.

    `.csv`, `.tsv` and `.parquet` have named columns. `.smi`, `.smiles`, `.ism` and `.txt` are lists:
    the SMILES is each line's first word, what follows is its ``name``; a first line that begins
    with ``smiles`` is a header. Each may end in `.gz` (parquet apart). ``-`` is standard input: CSV
    where its first line is a header that holds `column` beside others, or has a comma in its first
    word, else a list.

    Args:
        column: of the SMILES; a list has none.
        others: columns to keep; null keeps all.

    Raises:
        UserError: for a file that is missing, broken, or has other columns.
    """
    if path == STDIN:
        yield from _read_stdin(column, others)
        return
    kind = _kind(path)
    if kind == ".parquet":
        yield from _read_parquet(path, column, others)
        return
    with _opened(path) as file:
        if kind in DELIMITERS:
            yield from _read_table(file, DELIMITERS[kind], path, column, others)
        else:
            yield from _read_list(file, path, others)


def _kind(path: str) -> str:
    name = path.lower().removesuffix(".gz")
    kind = next((kind for kind in KINDS if name.endswith(kind)), None)
    if kind is None:
        raise UserError(
            f"{path}: molecules are read from {', '.join(KINDS)}, all but parquet also with .gz, "
            "and from - (standard input). Rename the file so that its ending says what it is."
        )
    return kind


def _is_gzip(path: str) -> bool:
    return path.lower().endswith(".gz")


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    """A text file; its faults become messages. A sign that is not UTF-8 becomes U+FFFD, so its row is reported."""
    try:
        with open(path, "rb") as raw:
            binary: IO[bytes] = gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw  # type: ignore[assignment]
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
            yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is a broken or cut-off gzip file ({error}). Fetch it again."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def _read_table(
    file: IO[str], delimiter: str, path: str, column: str, others: Sequence[str] | None
) -> Iterator[Row]:
    lines = csv.reader(file, delimiter=delimiter, strict=True)  # or an open quote swallows rows
    number = 0
    try:
        names = [name.strip() for name in next(lines, [])]
        place, kept = _places(names, path, column, others)
        for number, fields in enumerate(lines, start=1):
            if len(fields) > len(names):
                raise UserError(
                    f"{path}, row {number}: {len(fields)} fields under {len(names)} column names. "
                    "Put quotes around a field that holds the separator."
                )
            fields += [""] * (len(names) - len(fields))
            yield Row(number, fields[place].strip(), {name: fields[i] for name, i in kept.items()})
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1}: not a readable table ({error}).") from None


def _read_list(file: IO[str], path: str, others: Sequence[str] | None) -> Iterator[Row]:
    if unknown := [name for name in others or () if name != "name"]:
        raise UserError(
            f"{path} is a list of SMILES: beside them it has one column, name, and not {unknown[0]!r}."
        )
    keeps_name = others is None or "name" in others
    number = 0
    for line in file:
        smiles, _, name = line.strip().replace("\t", " ").partition(" ")
        if number == 0 and smiles.lower() in HEADERS:
            continue
        number += 1
        yield Row(number, smiles, {"name": name.strip()} if keeps_name else {})


def _read_stdin(column: str, others: Sequence[str] | None) -> Iterator[Row]:
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # type: ignore[union-attr]
    first = sys.stdin.readline()
    file = _Ahead(first, sys.stdin)
    names = [name.strip(' "\r\n') for name in first.split(",")]
    # No SMILES has a comma: a first word with one begins a table, if of other columns.
    if len(names) > 1 and (column in names or "," in first.split(None, 1)[0]):
        yield from _read_table(file, ",", "standard input", column, others)  # type: ignore[arg-type]
    else:
        yield from _read_list(file, "standard input", others)  # type: ignore[arg-type]


class _Ahead:
    """Lines of a stream whose first was read already."""

    def __init__(self, first: str, rest: IO[str]):
        self.first, self.rest = first, rest

    def __iter__(self) -> Iterator[str]:
        if self.first:
            yield self.first
        yield from self.rest


def _read_parquet(path: str, column: str, others: Sequence[str] | None) -> Iterator[Row]:
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
            _, kept = _places(names, path, column, others)
            number = 0
            for batch in file.iter_batches(batch_size=BATCH, columns=[column, *kept]):
                for values in batch.to_pylist():
                    number += 1
                    smiles = values.pop(column)
                    yield Row(number, "" if smiles is None else str(smiles).strip(), values)
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as parquet ({reason}).") from None


def _places(
    names: Sequence[str], path: str, column: str, others: Sequence[str] | None
) -> tuple[int, dict[str, int]]:
    """Where the SMILES stand, and the other columns that are kept."""
    for name in (column, *(others or ())):
        if name not in names:
            raise UserError(
                f"{Path(path).name} has no column {name!r}. "
                + (_nearest(name, names) if any(names) else "It is empty.")
            )
        if list(names).count(name) > 1:
            raise UserError(
                f"{Path(path).name} has {list(names).count(name)} columns named {name!r}."
            )
    wanted = names if others is None else others
    return list(names).index(column), {n: list(names).index(n) for n in wanted if n != column}


def _nearest(name: str, names: Sequence[str]) -> str:
    """What to say instead: another case, another separator, or another name."""
    if len(names) == 1 and (sign := next((s for s in ";\t|" if s in names[0]), None)):
        return f"Its columns are separated by {sign!r}, not by ','."
    same = [other for other in names if other.lower() == name.lower()]
    if same:
        return f"Did you mean {same[0]}? Accepted: {', '.join(names)}."
    return did_you_mean(name, names)
