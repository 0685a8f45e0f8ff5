"""UniProt's flat file (.dat), as Swiss-Prot and TrEMBL are published: one entry after the other."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lit_seqlm.data.table_rows import opened
from lit_seqlm.errors import UserError

END = "//"
TEXT = 5  # characters before a line's text: its code and three blanks
WRAPPED = ("AC", "OS", "OC", "OX", "KW")  # their lines are one text
EVIDENCE = re.compile(r"\s*\{[^{}]*\}")
TAXON = re.compile(r"NCBI_TaxID=(\d+)")
LENGTH = re.compile(r"SEQUENCE\s+(\d+) AA;")
GO_ID = re.compile(r"GO:\d{7}")


class GoTerm(NamedTuple):
    """What a ``DR GO`` line says.

    Attributes:
        id: ``GO:0008270``.
        aspect: ``F``, ``P`` or ``C``: molecular function, biological process, cellular component.
        term: in words.
        evidence: ``IEA:InterPro``.
    """

    id: str
    aspect: str
    term: str
    evidence: str


@dataclass(frozen=True)
class FlatEntry:
    """One protein.

    Attributes:
        line: of its first line in the file, from 1.
        entry: its name, such as ``001R_FRG3G``; empty where the file has none.
        accessions: the first is the primary one.
        organism: species, with its common names.
        lineage: from the kingdom on.
        taxon: number of the NCBI; null where it is not said.
        keywords, go, pfam: in the order of the file.
        sequence: as written, without blanks.
    """

    line: int
    entry: str
    accessions: tuple[str, ...]
    organism: str
    lineage: tuple[str, ...]
    taxon: int | None
    keywords: tuple[str, ...]
    go: tuple[GoTerm, ...]
    pfam: tuple[str, ...]
    sequence: str

    @property
    def accession(self) -> str:
        return self.accessions[0]


def read_flat_file(path: str) -> Iterator[FlatEntry]:
    """Every entry of a file, plain or ``.gz``, in its order.

    Raises:
        UserError: for a file that cannot be read, has no entry or ends within one; for an entry without ``AC`` or
            ``SQ``, or whose sequence has another length than it says; with the entry and the line.
    """
    with opened(path) as file:
        yield from parse_flat_file(file, path)


def parse_flat_file(lines: Iterable[str], where: str) -> Iterator[FlatEntry]:
    """Entries of some lines, as `read_flat_file`; `where` names the lines in messages."""
    draft = _Draft(where, 1)
    number = num_entries = 0
    for number, line in enumerate(lines, start=1):
        text = line.rstrip()
        if text == END:
            yield draft.entry()
            draft, num_entries = _Draft(where, number + 1), num_entries + 1
        elif text:
            draft.add(text, number)
    if not draft.is_empty:
        raise UserError(
            f"{where}, line {number}: the file ends within {draft.name}, before its '//'. Fetch it again."
        )
    if not num_entries:
        raise UserError(f"{where} has no entry: no line is '//'.")


class _Draft:
    """An entry of which some lines are read."""

    def __init__(self, where: str, line: int):
        self.where, self.line = where, line
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.parts: list[str] = []
        self.go: list[GoTerm] = []
        self.pfam: list[str] = []

    @property
    def is_empty(self) -> bool:
        return not self.texts and not self.parts

    @property
    def name(self) -> str:
        """For messages."""
        said = self.texts.get("AC") or self.texts.get("ID")
        return said[0].split(";")[0].split()[0] if said else f"the entry from line {self.line} on"

    def add(self, text: str, number: int) -> None:
        code, rest = text[:2], text[TEXT:].strip()
        if code == "  ":
            if "SQ" not in self.texts:
                raise self._fault(f"line {number}", "a sequence without an SQ line before it")
            self.parts += text.split()
        elif not code.isalnum() or not code.isupper() or text[2:TEXT].strip():
            raise self._fault(
                f"line {number}", f"{text[:40]!r} has no line code. Is it a .dat file?"
            )
        elif code == "DR":
            self._refer(rest, number)
        elif code in WRAPPED or code in ("ID", "SQ"):
            self.texts[code].append(rest)
        else:
            self.texts[code] = [""]

    def entry(self) -> FlatEntry:
        accessions = self._listed("AC")
        if not accessions:
            raise self._fault(f"line {self.line}", "an entry without an accession (AC)")
        sequence = "".join(self.parts)
        self._check_length(sequence)
        names = " ".join(self.texts.get("ID", [])).split()
        return FlatEntry(
            self.line, names[0] if names else "", accessions, self._joined("OS").removesuffix("."),
            self._listed("OC"), self._taxon(), self._listed("KW"), tuple(self.go), tuple(self.pfam), sequence,
        )  # fmt: skip

    def _refer(self, text: str, number: int) -> None:
        """A line ``GO; GO:0008270; F:zinc ion binding; IEA:InterPro.`` or ``Pfam; PF00856; SET; 1.``"""
        self.texts["DR"] = [""]
        bank, *fields = (field.strip() for field in text.removesuffix(".").split("; "))
        if bank == "Pfam" and fields and fields[0]:
            self.pfam.append(fields[0])
        elif bank == "GO" and len(fields) > 2 and GO_ID.fullmatch(fields[0]):
            aspect, _, term = "; ".join(fields[1:-1]).partition(":")
            self.go.append(GoTerm(fields[0], aspect, term, fields[-1]))
        elif bank in ("GO", "Pfam"):
            raise self._fault(f"line {number}", f"{text[:60]!r} is no reference to {bank}")

    def _joined(self, code: str) -> str:
        """The text of wrapped lines, without what it rests on."""
        return EVIDENCE.sub("", " ".join(self.texts.get(code, []))).strip()

    def _listed(self, code: str) -> tuple[str, ...]:
        words = (word.strip() for word in self._joined(code).removesuffix(".").split(";"))
        return tuple(word for word in words if word)

    def _taxon(self) -> int | None:
        said = self._joined("OX")
        found = TAXON.match(said)
        if said and not found:
            raise self._fault(self.name, f"{said[:40]!r} has no NCBI_TaxID=NUMBER")
        return int(found[1]) if found else None

    def _check_length(self, sequence: str) -> None:
        said = LENGTH.match(" ".join(self.texts.get("SQ", [])))
        if not said:
            raise self._fault(self.name, "it has no line 'SQ   SEQUENCE   NUMBER AA;'")
        if len(sequence) != int(said[1]) or not sequence:
            raise self._fault(
                self.name, f"{len(sequence)} residues, and SQ says {said[1]}. Fetch the file again"
            )

    def _fault(self, place: str, what: str) -> UserError:
        entry = "" if place == self.name or self.is_empty else f", {self.name}"
        return UserError(f"{self.where}, {place}{entry}: {what.rstrip('.')}.")
