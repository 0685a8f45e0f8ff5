"""Proteins of any file as rows for a trained model."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.json_rows import parse_json_lines
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.data.proteins.fasta import name_of, parse_fasta
from lit_seqlm.data.proteins.sources import (
    NAMES,
    SEQUENCE,
    Written,
    has_columns,
    of_objects,
    of_rows,
    parse_list,
    read_written,
)
from lit_seqlm.data.table_rows import Ahead, read_table

log = logging.getLogger(__name__)

STDIN, STDIN_CALLED = "-", "standard input"
SIGNS = ",\t"  # that separate columns; no sequence has one


class ProteinRows:
    """A source of proteins, on whose models any other file of proteins can be read."""

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        """See `protein_rows`."""
        return protein_rows(path, column, tokenizer)


def protein_rows(path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
    """Every row of a file, clean where it is a protein, else with the status that `clean` gives it.

    Args:
        path: see `read_written`; or ``-``, standard input: FASTA where it begins with ``>``, JSON lines where it
            begins with ``{``, a table where its first line has a comma or a tab or is the column's name, and else one
            sequence a line.
        column: of the sequences; null: ``sequence``.
        tokenizer: says `ambiguous` and `gapped`.

    Raises:
        UserError: for a file that is missing, broken, or has no such column.
    """
    if column is not None and path != STDIN and not has_columns(path):
        log.warning("task.column=%s has no effect: %s has no columns", column, path)
    num_lowered = 0
    for number, name, text in _read_stdin(column) if path == STDIN else read_written(path, column):
        found = clean(text, tokenizer.ambiguous, tokenizer.gapped)
        num_lowered += found.lowered
        yield InputRow(number, text, found.sequence, found.status, found.reason, name)
    if num_lowered:
        log.warning(
            "%s: %d sequences had lower-case letters, read as upper case", path, num_lowered
        )


def _read_stdin(column: str | None) -> Iterator[Written]:
    sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # type: ignore[union-attr]
    first = sys.stdin.readline()
    lines, begin = Ahead(first, sys.stdin), first.strip()
    sign = next((sign for sign in SIGNS if sign in begin), SIGNS[0])
    if begin.startswith(">"):
        records = parse_fasta(lines, STDIN_CALLED, allow_empty=True)
        for number, record in enumerate(records, start=1):
            yield Written(number, name_of(record.header), record.sequence)
    elif begin.startswith("{"):
        objects = parse_json_lines(lines, STDIN_CALLED)
        yield from of_objects(objects, column, f"{STDIN_CALLED}, line")
    elif sign in begin or begin == (column or SEQUENCE):
        table = read_table(lines, sign, STDIN_CALLED, column or SEQUENCE, [], NAMES)
        yield from of_rows(table)
    else:
        yield from parse_list(lines, STDIN_CALLED)
