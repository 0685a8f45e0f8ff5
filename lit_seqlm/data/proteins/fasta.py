"""FASTA files, one record after the other: own lines, since Biopython's parser knows no line numbers."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lit_seqlm.data.table_rows import opened
from lit_seqlm.errors import UserError

UNIPROT = re.compile(
    r"(?P<bank>sp|tr)\|(?P<accession>[^|\s]+)\|(?P<entry>\S*)(?:\s+|$)(?P<rest>.*)"
)
UNIREF = re.compile(r"(?P<cluster>UniRef\d+_\S+)(?:\s+|$)(?P<rest>.*)")
UNIPROT_KEY = re.compile(r"(?:^|\s)(OS|OX|GN|PE|SV)=")
UNIREF_KEY = re.compile(r"(?:^|\s)(n|Tax|TaxID|RepID)=")
GZIP = "\x1f"  # first byte of a file that is compressed


class FastaRecord(NamedTuple):
    """One record as it was written.

    Attributes:
        line: of its ``>``, from 1.
        header: behind the ``>``, without white space around it.
        sequence: its lines joined; white space inside them stays.
    """

    line: int
    header: str
    sequence: str


@dataclass(frozen=True)
class Header:
    """What a line after ``>`` says.

    Attributes:
        name: the accession, the cluster, or the first word.
        description: what a person reads.
        entry: UniProt's name of the entry, such as ``FTSN_ECOLI``.
        organism, taxon: name, and number of the NCBI; empty and null where they are not said.
        fields: ``KEY=value`` as written.
    """

    name: str
    description: str
    entry: str = ""
    organism: str = ""
    taxon: int | None = None
    fields: dict[str, str] = field(default_factory=dict)


def read_fasta(path: str, allow_empty: bool = False) -> Iterator[FastaRecord]:
    """Every record of a file, plain or ``.gz``, in its order.

    Args:
        allow_empty: a record without a sequence is given out like others, not refused.

    Raises:
        UserError: for a file that cannot be read or has no record, for text before the first ``>``, and for a
            record without a name or a sequence; with the number of the line.
    """
    with opened(path) as file:
        yield from parse_fasta(file, path, allow_empty)


def parse_fasta(lines: Iterable[str], where: str, allow_empty: bool) -> Iterator[FastaRecord]:
    """Records of some lines, as `read_fasta`; lines without a letter mean nothing.

    Args:
        where: what the lines are of, for messages.
    """
    start, header, parts = 0, "", [""]
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith(">"):
            if start:
                yield _whole(start, header, parts, where, allow_empty)
            start, header, parts = number, text[1:].strip(), []
            if not header:
                raise UserError(f"{where}, line {number}: a record without a name, only '>'.")
        elif text and not start:
            raise UserError(f"{where}, line {number}: {_no_record(line)}")
        elif text:
            parts.append(text)
    if not start:
        raise UserError(f"{where} has no record: no line begins with '>'.")
    yield _whole(start, header, parts, where, allow_empty)


def parse_header(header: str, kind: str, where: str = "") -> Header:
    """What a header says.

    Args:
        kind: ``uniprot``, ``uniref``, ``plain``; or ``auto``, which is whichever the header looks like.
        where: begins a message.

    Raises:
        UserError: for a header of another kind, and a taxon that is no number.
    """
    if kind == "auto":
        kind = next((one for one, looks in LOOKS.items() if looks.match(header)), "plain")
    if kind not in PARSERS:
        raise UserError(f"header={kind}: choose {', '.join(('auto', *PARSERS))}.")
    return PARSERS[kind](header, f"{where}: " if where else "")


def name_of(header: str) -> str:
    """UniProt's accession, or the first word: as `parse_header` says it, and as mmseqs calls a protein."""
    found = UNIPROT.match(header)
    return found["accession"] if found else header.split(None, 1)[0]


def _uniprot(header: str, where: str) -> Header:
    found = _matched(UNIPROT, header, where, "sp|ACCESSION|ENTRY description OS=... or tr|...")
    description, fields = _split(found["rest"], UNIPROT_KEY)
    taxon = _taxon(fields.get("OX", ""), where)
    organism = fields.get("OS", "")
    return Header(found["accession"], description, found["entry"], organism, taxon, fields)


def _uniref(header: str, where: str) -> Header:
    found = _matched(
        UNIREF, header, where, "UniRef50_ACCESSION description n=... Tax=... TaxID=..."
    )
    description, fields = _split(found["rest"], UNIREF_KEY)
    taxon = _taxon(fields.get("TaxID", ""), where)
    return Header(found["cluster"], description, "", fields.get("Tax", ""), taxon, fields)


def _plain(header: str, where: str) -> Header:
    words = header.split(None, 1)
    return Header(words[0] if words else "", words[1] if len(words) > 1 else "")


LOOKS = {"uniprot": UNIPROT, "uniref": UNIREF}
PARSERS: dict[str, Callable[[str, str], Header]] = {
    "uniprot": _uniprot,
    "uniref": _uniref,
    "plain": _plain,
}


def _matched(looks: re.Pattern[str], header: str, where: str, wanted: str) -> re.Match[str]:
    found = looks.match(header)
    if found is None:
        raise UserError(f"{where}{header[:60]!r} is no header like {wanted}.")
    return found


def _split(text: str, key: re.Pattern[str]) -> tuple[str, dict[str, str]]:
    """The words before the first ``KEY=``, and the value of each key."""
    description, *pairs = key.split(text)
    fields = dict(zip(pairs[::2], map(str.strip, pairs[1::2]), strict=True))
    return description.strip(), fields


def _taxon(text: str, where: str) -> int | None:
    """The number of a taxon; UniRef has ``N/A`` for some."""
    word = text.split(None, 1)[0] if text.strip() else ""
    if word in ("", "N/A"):
        return None
    if not word.isdecimal():
        raise UserError(f"{where}{word!r} is no number of a taxon.")
    return int(word)


def _whole(start: int, header: str, parts: list[str], where: str, allow_empty: bool) -> FastaRecord:
    sequence = "".join(parts)
    if not sequence and not allow_empty:
        raise UserError(f"{where}, line {start}: {header.split()[0]} has no sequence.")
    return FastaRecord(start, header, sequence)


def _no_record(line: str) -> str:
    if line.startswith(GZIP):
        return "it is compressed. Let its name end in .gz."
    return f"{line.strip()[:40]!r} before the first record, which begins with '>'. Is it FASTA?"
