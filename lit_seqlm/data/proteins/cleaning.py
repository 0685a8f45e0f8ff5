"""A sequence as a file has it becomes one that the tokenizer reads, or is refused with its place."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from lit_seqlm.data.property_source import report_left_out
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import RESIDUES, STANDARD

log = logging.getLogger(__name__)

GAPS = str.maketrans("", "", "-.")
NO_J = str.maketrans("J", "X")
TO_X = str.maketrans("BZUOJ", "XXXXX")
SPACE = str.maketrans("", "", " \t\r\n")
FOR_RUN = "data.tokenizer.gapped=true"  # what is typed for aligned sequences
FOR_SCRIPTS = "--gapped"


class Record(NamedTuple):
    """One protein of a file: its accession (or what the file calls it), and its sequence as written."""

    name: str
    sequence: str


@dataclass(frozen=True)
class Cleaned:
    """What became of a written sequence.

    Attributes:
        sequence: upper-case letters; null where it was refused.
        status: ``ok``, ``empty``, ``illegal`` or ``ambiguous``.
        reason: what is wrong, in full.
        lowered: whether it had lower-case letters, which mean soft masking in FASTA files.
    """

    sequence: str | None
    status: str
    reason: str = ""
    lowered: bool = False


def clean(written: str, ambiguous: str, gapped: bool, to_type: str = FOR_RUN) -> Cleaned:
    """Take out white space and one final ``*``, make upper case, and apply the policies of the tokenizer.

    J is in no vocabulary and always becomes X. Positions in messages count the signs as they are written, gaps
    too, but no white space.

    Args:
        ambiguous, gapped: as `lit_seqlm.tokenizer.amino_acid.AminoAcidTokenizer` has them.
        to_type: what to say for gaps, which depends on the command; empty where it takes none, or its --help says it.
    """
    letters = written.translate(SPACE)
    sequence = letters.removesuffix("*")
    if gapped:
        sequence = sequence.translate(GAPS)
    upper = sequence.upper()
    lowered = upper != sequence
    found = upper.translate(TO_X if ambiguous == "to_x" else NO_J)
    if not found:
        return Cleaned(None, "empty", "the sequence is empty", lowered)
    if not sequence.isascii() or set(found) - set(RESIDUES):
        return Cleaned(None, "illegal", _where(letters, gapped, to_type), lowered)
    if ambiguous == "drop" and set(upper) - set(STANDARD):
        signs = letters.upper()  # with its gaps, which count
        bad = next(i for i, sign in enumerate(signs) if sign not in STANDARD + "-.")
        why = f"{signs[bad]!r} at position {bad + 1} is ambiguous"
        return Cleaned(None, "ambiguous", why, lowered)
    return Cleaned(found, "ok", "", lowered)


def cleaned(
    records: Iterable[Record], tokenizer: Any, where: str, to_type: str = FOR_RUN
) -> Iterator[Record]:
    """Records of a corpus with sequences that the tokenizer reads.

    Sequences that ``ambiguous=drop`` leaves out are told at the end, the first on the screen and all in the log's
    file, as is one warning for all that had lower-case letters.

    Args:
        tokenizer: says `ambiguous` and `gapped`.
        where: begins a message: ``data=swissprot``.
        to_type: see `clean`.

    Raises:
        UserError: for an empty sequence and for a character that is no residue; names the record.
    """
    num_lowered, left_out = 0, []
    for record in records:
        found = clean(record.sequence, tokenizer.ambiguous, tokenizer.gapped, to_type)
        num_lowered += found.lowered
        if found.status == "ambiguous":
            left_out.append(f"{record.name}: {found.reason}")
        elif found.sequence is None:
            raise UserError(f"{where}, {record.name}: {found.reason}.")
        else:
            yield Record(record.name, found.sequence)
    if num_lowered:
        log.warning(
            "%s: %d sequences had lower-case letters, read as upper case", where, num_lowered
        )
    report_left_out(f"{where}, data.tokenizer.ambiguous=drop", "sequence", left_out)


def _where(letters: str, gapped: bool, to_type: str) -> str:
    """The first character that is no residue, and what to say if it is a gap."""
    last = len(letters) - 1
    for place, letter in enumerate(letters):
        is_gap = letter in "-."
        if (is_gap and gapped) or (letter == "*" and place == last):
            continue
        if letter.upper() not in RESIDUES + "J" or not letter.isascii():
            hint = f". For aligned sequences say {to_type}" if is_gap and to_type else ""
            return f"{letter!r} at position {place + 1} is no residue{hint}"
    return "a character that is no residue"
