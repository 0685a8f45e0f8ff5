"""Proteins of any file, by its ending."""

from collections.abc import Iterator

from lit_seqlm.data.chemistry.rows import read_rows
from lit_seqlm.data.proteins.cleaning import Record

NAME_COLUMN, SEQUENCE_COLUMN = "accession", "sequence"


def read_records(path: str) -> Iterator[Record]:
    """Every protein of a file, in its order, as written."""
    for row in read_rows(path, SEQUENCE_COLUMN, [NAME_COLUMN]):
        yield Record(row.columns[NAME_COLUMN], row.smiles)
