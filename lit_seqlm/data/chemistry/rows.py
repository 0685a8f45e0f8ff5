"""Molecules of a file one after the other, in constant memory: CSV, TSV, SMILES lists, parquet, standard input."""

import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from lit_seqlm.data.table_rows import DELIMITERS, Ahead, opened, read_parquet, read_table
from lit_seqlm.errors import UserError

STDIN = "-"
LISTS = (".smi", ".smiles", ".ism", ".txt")
KINDS = (*DELIMITERS, *LISTS, ".parquet")
HEADERS = {
    "smiles",
    "canonical_smiles",
    "isomeric_smiles",
}  # first word of a list that is no molecule


class Row(NamedTuple):
    """One molecule as it was written; see `lit_seqlm.data.table_rows.TextRow`."""

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
        yield from map(Row._make, read_parquet(path, column, others))
        return
    with opened(path) as file:
        if kind in DELIMITERS:
            yield from map(Row._make, read_table(file, DELIMITERS[kind], path, column, others))
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


def _read_list(file: IO[str] | Ahead, path: str, others: Sequence[str] | None) -> Iterator[Row]:
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
    file = Ahead(first, sys.stdin)
    names = [name.strip(' "\r\n') for name in first.split(",")]
    # No SMILES has a comma: a first word with one begins a table, if of other columns.
    if len(names) > 1 and (column in names or "," in first.split(None, 1)[0]):
        rows = read_table(file, ",", "standard input", column, others)
        yield from map(Row._make, rows)
    else:
        yield from _read_list(file, "standard input", others)
