"""Proteins of any file, by its ending."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lit_seqlm.data.json_rows import read_json_lines
from lit_seqlm.data.proteins.blast import ENDINGS, INDEX, BlastDatabase
from lit_seqlm.data.proteins.cleaning import Record
from lit_seqlm.data.proteins.fasta import name_of, read_fasta
from lit_seqlm.data.proteins.flat_file import read_flat_file
from lit_seqlm.data.proteins.metastudent import (
    ANNOTATIONS,
    DATABASE,
    ONTOLOGIES,
    RELEASE,
    AnnotatedDatabase,
    Metastudent,
)
from lit_seqlm.data.proteins.tape_files import DATA, read_tape
from lit_seqlm.data.table_rows import DELIMITERS, TextRow, opened, read_parquet, read_table
from lit_seqlm.errors import UserError

FASTA, FLAT, LISTS = (".fasta", ".fa", ".faa", ".fas"), (".dat",), (".txt", ".seq")
SEQUENCE = "sequence"  # the column, where the user names none; the heading of a list
KEYS = (SEQUENCE, "primary")  # of JSON and of TAPE's files
NAMES = ("accession", "id", "name")  # columns and keys; the first that is there


class Written(NamedTuple):
    """One protein of a file.

    Attributes:
        number: as a person counts, from 1; a line of column names is not counted.
        name: its accession, or what the file calls it; empty where it has no names.
        text: the sequence as written.
    """

    number: int
    name: str
    text: str


def read_records(path: str, column: str | None = None) -> Iterator[Record]:
    """Every protein of a file, in its order, as written; without a name it is called by its row.

    Raises:
        UserError: see `read_written`.
    """
    for number, name, text in read_written(path, column):
        yield Record(name or f"row {number}", text)


def read_written(path: str, column: str | None) -> Iterator[Written]:
    """Every protein of a file, in its order, one at a time; none is left out, empty ones included.

    FASTA (`.fasta`, `.fa`, `.faa`, `.fas`), UniProt's flat file (`.dat`), tables (`.csv`, `.tsv`, `.parquet`), JSON
    (`.jsonl`: an object a line; `.json`: one list), one sequence a line (`.txt`, `.seq`): all but parquet also with
    `.gz`. TAPE's `.lmdb`, and databases of BLAST: NAME or NAME.pin, or the folder of metastudent-data.

    Args:
        column: of the sequence, in a table or an object. Null: ``sequence``, or TAPE's ``primary`` in JSON and LMDB.

    Raises:
        UserError: for a file that is missing, broken, of another kind, or has no such column.
    """
    reader = _reader(path)
    if reader is None:
        raise UserError(f"{path}: {_accepted()} Rename it so that its ending says what it is.")
    return reader(path, column)


def parse_list(lines: Iterable[str], where: str) -> Iterator[Written]:
    """One sequence a line, blank lines included; a first line ``sequence`` is a heading.

    Raises:
        UserError: for FASTA.
    """
    number = 0
    for line in lines:
        text = line.strip()
        if number == 0 and text in (SEQUENCE, SEQUENCE.capitalize()):
            continue
        if number == 0 and text.startswith(">"):
            raise UserError(f"{where} begins with '>' as FASTA does. Let its name end in .fasta.")
        number += 1
        yield Written(number, "", text)


def of_rows(rows: Iterable[TextRow]) -> Iterator[Written]:
    """Rows of a table, read with the `optional` columns `NAMES`."""
    for number, text, columns in rows:
        yield Written(number, _name(columns), text)


def of_objects(
    objects: Iterable[tuple[int, dict[str, Any]]], column: str | None, where: str
) -> Iterator[Written]:
    """Objects with a sequence under a key.

    Args:
        objects: each with what messages call it: its line or its place.

    Raises:
        UserError: for one without it, and for one that is no text; null is an empty sequence.
    """
    for number, (line, found) in enumerate(objects, start=1):
        key = column or next((key for key in KEYS if key in found), SEQUENCE)
        if key not in found:
            raise UserError(
                f"{where} {line}: it has no {key!r}. It has: {', '.join(map(str, found)) or 'nothing'}."
            )
        text = text_of(found[key], f"{where} {line}", key)
        yield Written(number, _name(found), text.strip())


def text_of(value: Any, where: str, key: str) -> str:
    """A sequence as an object has it; null is an empty one, and a byte that is no UTF-8 is a sign that is no residue.

    Raises:
        UserError: it is no text.
    """
    if value is None:
        return ""
    if not isinstance(value, str | bytes):
        raise UserError(f'{where}: {key!r} is {value!r:.40}; a sequence is a text, such as "MKV".')
    return _text(value)


def _fasta(path: str, column: str | None) -> Iterator[Written]:
    for number, record in enumerate(read_fasta(path, allow_empty=True), start=1):
        yield Written(number, name_of(record.header), record.sequence)


def _flat_file(path: str, column: str | None) -> Iterator[Written]:
    for number, entry in enumerate(read_flat_file(path), start=1):
        yield Written(number, entry.accession, entry.sequence)


def _table(path: str, column: str | None) -> Iterator[Written]:
    name = path.lower().removesuffix(".gz")
    delimiter = next(sign for ending, sign in DELIMITERS.items() if name.endswith(ending))
    with opened(path) as file:
        yield from of_rows(read_table(file, delimiter, path, column or SEQUENCE, [], NAMES))


def _parquet(path: str, column: str | None) -> Iterator[Written]:
    return of_rows(read_parquet(path, column or SEQUENCE, [], NAMES))


def _list(path: str, column: str | None) -> Iterator[Written]:
    with opened(path) as file:
        yield from parse_list(file, path)


def _json_lines(path: str, column: str | None) -> Iterator[Written]:
    return of_objects(read_json_lines(path), column, f"{path}, line")


def _tape(path: str, column: str | None) -> Iterator[Written]:
    return of_objects(enumerate(read_tape(path), start=1), column, f"{path}, protein")


def _blast(path: str, column: str | None) -> Iterator[Written]:
    place = Path(path)
    if place.name.startswith(DATABASE) and (place.parent / ANNOTATIONS).is_file():
        annotated = AnnotatedDatabase(place.parent)
        pairs = zip(annotated.accessions(), annotated.database.sequences(), strict=True)
    else:
        database = BlastDatabase(path)
        titles = map(database.title_of, range(len(database)))
        pairs = zip(map(name_of, titles), database.sequences(), strict=True)
    for number, (name, sequence) in enumerate(pairs, start=1):
        yield Written(number, name, sequence)


def _metastudent(path: str, column: str | None) -> Iterator[Written]:
    for number, protein in enumerate(Metastudent(path), start=1):
        yield Written(number, protein.accession, protein.sequence)


Reader = Callable[[str, str | None], Iterator[Written]]
READERS: dict[tuple[str, ...], Reader] = {
    FASTA: _fasta,
    FLAT: _flat_file,
    tuple(DELIMITERS): _table,
    (".parquet",): _parquet,
    LISTS: _list,
    (".jsonl",): _json_lines,
    (".json", ".lmdb", ".mdb"): _tape,
    ENDINGS: _blast,
}
WITH_COLUMNS = (_table, _parquet, _json_lines, _tape)


def has_columns(path: str) -> bool:
    """Whether a file of this name has columns or keys, of which a user may name one."""
    name = path.lower().removesuffix(".gz")
    kinds = (kinds for kinds, reader in READERS.items() if reader in WITH_COLUMNS)
    return name.endswith(tuple(chain(*kinds)))


def _reader(path: str) -> Reader | None:
    """What reads a place, by its name or, where it is no file, by what lies there."""
    place = Path(path)
    if place.is_dir():
        if (place / DATA).is_file():
            return _tape
        if any((place / one).is_dir() for one in (RELEASE, *ONTOLOGIES)):
            return _metastudent
        raise UserError(f"{path} is a folder without proteins: name a file. {_accepted()}")
    if not place.exists() and place.with_name(place.name + INDEX).is_file():
        return _blast
    name = path.lower().removesuffix(".gz")
    return next((reader for kinds, reader in READERS.items() if name.endswith(kinds)), None)


def _name(columns: dict[str, Any]) -> str:
    """Of the first column that names are usually in."""
    value = next((columns[name] for name in NAMES if name in columns), None)
    return "" if value is None else _text(value).strip()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _accepted() -> str:
    endings = ", ".join(chain(*READERS))
    return f"proteins are read from {endings}, of texts also with .gz."
