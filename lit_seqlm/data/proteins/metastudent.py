"""Swiss-Prot of January 2014 with terms of the Gene Ontology, as Debian's package metastudent-data has it."""

# N = proteins of all three ontologies together

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_seqlm.data.proteins.blast import BlastDatabase
from lit_seqlm.errors import UserError

FOLDER = "/usr/share/metastudent-data"  # where the package puts it
RELEASE = "dataset_201401"
ONTOLOGIES = {"MFO": "molecular_function", "BPO": "biological_process", "CCO": "cellular_component"}
DATABASE, ANNOTATIONS = "goasp.fasta", "goasp_annot.dat"
LINE = re.compile(rb"([^\t\s]+)((?:\tGO:\d{7})+)\r?\n?")
ABSENT = -1


@dataclass(frozen=True)
class AnnotatedProtein:
    """One protein.

    Attributes:
        terms: by the name of the ontology; ids such as ``GO:0046933``, as annotated, without their ancestors.
    """

    accession: str
    sequence: str
    terms: dict[str, frozenset[str]]


class Metastudent:
    """The union of three databases, one an ontology; the same accession has the same sequence in all.

    Line i of an ontology's annotations is sequence i of its database, so titles are not read. Accessions are held
    in memory, about 100 MB for all; sequences and terms are read where they lie.

    Args:
        folder: of the package, or of its release.

    Raises:
        UserError: for a folder that is none, and for databases and annotations that do not fit each other.
    """

    def __init__(self, folder: str | Path = FOLDER):
        base = Path(folder)
        self.folder = base / RELEASE if (base / RELEASE).is_dir() else base
        if missing := [name for name in ONTOLOGIES if not (self.folder / name).is_dir()]:
            raise UserError(
                f"{self.folder} has no folder {missing[0]}: it is not Debian's metastudent-data. Get it with "
                f"apt-get install metastudent-data; it lies in {FOLDER} then."
            )
        self.parts = [AnnotatedDatabase(self.folder / name) for name in ONTOLOGIES]
        rows: dict[str, list[int]] = {}
        for number, part in enumerate(self.parts):
            for place, accession in enumerate(part.accessions()):
                own = rows.setdefault(accession, [ABSENT] * len(self.parts))
                if own[number] != ABSENT:
                    raise UserError(
                        f"{part.path}, line {place + 1}: {accession} for a second time."
                    )
                own[number] = place
        self._names = list(rows)
        self._places_N3 = np.array(list(rows.values()), np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[AnnotatedProtein]:
        for name, places in zip(self._names, self._places_N3.tolist(), strict=True):
            yield self._protein(name, places)

    def _protein(self, name: str, places: list[int]) -> AnnotatedProtein:
        found: dict[str, frozenset[str]] = {}
        sequences = []
        for ontology, part, place in zip(ONTOLOGIES.values(), self.parts, places, strict=True):
            found[ontology] = part.terms(place) if place != ABSENT else frozenset()
            if place != ABSENT:
                sequences.append(part.database.sequence(place))
        if len(set(sequences)) > 1:
            raise UserError(
                f"{self.folder}: {name} has several sequences. Install the package again."
            )
        return AnnotatedProtein(name, sequences[0], found)


class AnnotatedDatabase:
    """One ontology: a database, and a line of annotations for each of its sequences.

    Raises:
        UserError: for files that are missing or do not fit each other.
    """

    def __init__(self, folder: Path):
        self.database = BlastDatabase(folder / DATABASE)
        self.path = folder / ANNOTATIONS
        if not self.path.is_file():
            raise UserError(f"there is no {self.path}. Install metastudent-data again.")
        with self.path.open("rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == ord("\n")) + 1
        self._starts = np.concatenate([[0], ends])
        if self._starts[-1] != len(self._text):
            self._starts = np.append(self._starts, len(self._text))
        if len(self._starts) - 1 != len(self.database):
            raise UserError(
                f"{self.path} has {len(self._starts) - 1:,} lines, and the database {len(self.database):,} sequences: "
                "line i is of sequence i. Install metastudent-data again."
            )

    def accessions(self) -> Iterator[str]:
        """Of all sequences, in their order."""
        for place in range(len(self.database)):
            yield self._line(place)[1].decode("utf-8", "replace")

    def terms(self, place: int) -> frozenset[str]:
        """Of the sequence at a place, each once."""
        return frozenset(self._line(place)[2].decode("ascii").split())

    def _line(self, place: int) -> re.Match[bytes]:
        found = LINE.fullmatch(self._text, int(self._starts[place]), int(self._starts[place + 1]))
        if found is None:
            raise UserError(
                f"{self.path}, line {place + 1}: not an accession and terms such as GO:0046933, with tabs between them."
            )
        return found
