"""Chains of the Protein Data Bank: which residues touch, and what DSSP calls them."""

# L = residues of a chain

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import UNSCORED, AnnotatedTable
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_source import Dropped
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.split_lists import SplitList, read_split_list
from lit_seqlm.errors import UserError

EIGHT = ("H", "B", "E", "G", "I", "T", "S", "C")  # of DSSP; C is what it leaves blank
SPLIT = "pdb_chains_cluster"
DECI = 0.1  # Angstrom, the unit of the coordinates


@dataclass
class PdbChain:
    """A chain: its residues, their classes, and coordinates of one atom each, in 0.1 Angstrom, int16 (L, 3)."""

    name: str
    sequence: str
    dssp: str
    ca_L3: np.ndarray
    cb_L3: np.ndarray


def read_chains(files: PublishedFiles) -> Iterator[PdbChain]:
    """All chains of the published file."""
    files.fetch()
    with np.load(files["coords_decangstrom_int16.npz"]) as arrays:
        lengths, ca, cb = arrays["length"], arrays["ca"], arrays["cb"]
    ends = np.cumsum(lengths, dtype=np.int64)
    with gzip.open(files["chains.tsv.gz"], "rt", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for row, length, end in zip(rows, lengths, ends, strict=True):
            inside = slice(end - length, end)
            name = f"{row['pdb']}-{row['chain']}"
            yield PdbChain(name, row["sequence"], row["dssp"], ca[inside], cb[inside])


def split_of_chains() -> SplitList:
    """Whole clusters of 30 % identity, and all chains of one entry, are in one split."""
    return read_split_list(SPLIT)


class ContactMaps(Sequence[np.ndarray]):
    """Which residues touch, int8 (L, L): made when asked for, from coordinates (L, 3) in Angstrom.

    Two residues touch if their distance is below `cutoff`, or at most it where `closed`; what has no
    coordinates is -1. A residue's distance to itself is 0.
    """

    def __init__(self, coordinates: Sequence[np.ndarray], cutoff: float, closed: bool):
        self.coordinates, self.cutoff, self.closed = coordinates, cutoff, closed

    def __len__(self) -> int:
        return len(self.coordinates)

    def __getitem__(self, place: Any) -> Any:
        return contact_map(self.coordinates[place], self.cutoff, self.closed)


def contact_map(points_L3: np.ndarray, cutoff: float, closed: bool) -> np.ndarray:
    """See `ContactMaps`; a coordinate that is no number is missing."""
    known_L = np.isfinite(points_L3).all(1)
    points_L3 = np.where(known_L[:, None], points_L3, 0.0).astype(np.float64)
    square_LL = ((points_L3[:, None] - points_L3[None]) ** 2).sum(-1)
    touch_LL = square_LL <= cutoff**2 if closed else square_LL < cutoff**2
    return np.where(known_L[:, None] & known_L, touch_LL, UNSCORED).astype(np.int8)


class PdbContacts:
    """Contacts of 5,000 chains of 40 to 256 residues.

    Args:
        atom: ``cb``, C-beta (of glycine C-alpha), as CASP and ESM measure; ``ca``, C-alpha, as TAPE.
        cutoff: Angstrom.
        closed: whether a distance of just the cutoff is a contact, as in TAPE's first code.
    """

    site, classes, measure, tests = "pair", ("apart", "contact"), "pair_accuracy", ("test",)

    def __init__(self, data_dir: str, atom: str, cutoff: float, closed: bool):
        if atom not in ("ca", "cb"):
            raise UserError(f"data.source.atom={atom}: choose cb or ca.")
        if not cutoff > 0:
            raise UserError(f"data.source.cutoff={cutoff}: a distance in Angstrom, above 0.")
        self.name, self.atom, self.cutoff, self.closed = "contacts_pdb", atom, cutoff, closed
        self.files = PublishedFiles("structures", self.name, data_dir)
        sign = "at most" if closed else "below"
        self.card: dict[str, Any] = {
            "contact": f"{'C-alpha' if atom == 'ca' else 'C-beta'} distance {sign} {cutoff:g} Angstrom",
            "split": "whole clusters at 30 % identity and whole entries of the PDB",
        }

    def digest(self) -> str:
        return self.files.digest() + split_of_chains().digest()

    def fetch(self) -> None:
        self.files.fetch()

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        splits, points = split_of_chains(), []
        table = AnnotatedTable([], [], [])
        for place, chain in enumerate(read_chains(self.files), start=1):
            if splits.split_of(chain.name) != split:
                continue
            found = clean(chain.sequence, tokenizer.ambiguous, False)
            if found.sequence is None:
                table.dropped.append(Dropped(place, f"{chain.name}: {found.reason}"))
                continue
            table.names.append(chain.name)
            table.sequences.append(found.sequence)
            points.append(DECI * (chain.ca_L3 if self.atom == "ca" else chain.cb_L3))
        table.labels = ContactMaps(points, self.cutoff, self.closed)
        return table

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        from lit_seqlm.data.proteins.rows import protein_rows

        return protein_rows(path, column, tokenizer)
