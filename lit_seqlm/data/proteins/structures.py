"""Chains of the Protein Data Bank: their secondary structure by DSSP, and which of their residues touch."""

# L = residues of a chain

import csv
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import UNSCORED, AnnotatedTable
from lit_seqlm.data.proteins.labelled import Labelled, labelled_table
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.rows import ProteinRows
from lit_seqlm.data.proteins.split_lists import read_split_list
from lit_seqlm.errors import UserError

ATOMS = ("cb", "ca")
TABLE, COORDINATES = "chains.tsv.gz", "coords_decangstrom_int16.npz"
PER_ANGSTROM = 10  # the file's coordinates are whole tenths of an Angstrom


@dataclass
class PdbChain:
    """A chain: its residues, their classes, and coordinates of two atoms each, in 0.1 Angstrom, int16 (L, 3).

    The file has a place for the C-beta of glycine too, which has none: it is computed, and not read here.
    """

    number: int
    name: str
    sequence: str
    dssp: str
    ca_L3: np.ndarray
    cb_L3: np.ndarray

    def points_of(self, atom: str) -> np.ndarray:
        """Of each residue its C-alpha, or its C-beta if it has one, float32."""
        if atom == "ca":
            return self.ca_L3.astype(np.float32)
        is_glycine_L = np.frombuffer(self.sequence.encode(), np.uint8) == ord("G")
        return np.where(is_glycine_L[:, None], self.ca_L3, self.cb_L3).astype(np.float32)


class PdbChains:
    """The published chains, divided by a list of what is held out.

    Args:
        name: of the data that read them, for messages.
        split: a list of names like ``1A32-A``. Those of `experiments/pdb_splits.py` hold out whole entries:
            ``pdb_chains_cluster`` whole clusters of 30 % identity, ``pdb_chains_clear`` also what is related to CB513
            or TS115, of which 24 chains stay in validation: they help to choose weights; ``pdb_chains_entry`` is
            drawn by chance.
    """

    def __init__(self, name: str, data_dir: str, split: str):
        self.name, self.split = name, split
        self.files = PublishedFiles("structures", name, data_dir)

    def digest(self) -> str:
        """Of the files and of the list."""
        both = self.files.digest() + read_split_list(self.split).digest()
        return hashlib.sha256(both.encode()).hexdigest()[:16]

    def of(self, split: str) -> Iterator[PdbChain]:
        """Chains of a split, in the order of the file."""
        held_out = read_split_list(self.split)
        held_out.check_source(f"data={self.name}: {TABLE}", self.files.hashes[TABLE])
        for chain in self.read():
            if held_out.split_of(chain.name) == split:
                yield chain
        held_out.check_used(f"data={self.name}: {TABLE}")

    def read(self) -> Iterator[PdbChain]:
        """All of them."""
        self.files.fetch()
        with np.load(self.files[COORDINATES]) as arrays:
            lengths, ca, cb = arrays["length"], arrays["ca"], arrays["cb"]
        ends = np.cumsum(lengths, dtype=np.int64)
        with gzip.open(self.files[TABLE], "rt", encoding="utf-8") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            for number, (row, length, end) in enumerate(zip(rows, lengths, ends, strict=True)):
                inside = slice(end - length, end)
                name = f"{row['pdb']}-{row['chain']}"
                yield PdbChain(
                    number + 1, name, row["sequence"], row["dssp"], ca[inside], cb[inside]
                )


class ContactMaps(Sequence[np.ndarray]):
    """Which residues touch, int8 (L, L): made when asked for, from coordinates (L, 3).

    Two residues touch if their distance is below `cutoff`, or at most it where `closed`. What has no coordinates is
    -1, and so are pairs fewer than `separation` residues apart in the chain.

    Args:
        cutoff: in the unit of the coordinates.
    """

    def __init__(self, points: Sequence[np.ndarray], cutoff: float, closed: bool, separation: int):
        self.points, self.cutoff, self.closed = points, cutoff, closed
        self.separation = separation

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, place: Any) -> Any:
        map_LL = contact_map(self.points[place], self.cutoff, self.closed)
        if self.separation > 0:
            near_LL = np.tri(len(map_LL), k=self.separation - 1, dtype=bool)
            map_LL[near_LL & near_LL.T] = UNSCORED
        return map_LL


def contact_map(points_L3: np.ndarray, cutoff: float, closed: bool) -> np.ndarray:
    """See `ContactMaps`; a coordinate that is no number is missing.

    Distances between whole numbers are compared exactly, so that what lies just at the cutoff is told apart.
    """
    known_L = np.isfinite(points_L3).all(1)
    columns_3L = np.where(known_L[:, None], points_L3, 0).T
    square_LL = sum((values_L[:, None] - values_L) ** 2 for values_L in columns_3L)
    touch_LL = square_LL <= cutoff**2 if closed else square_LL < cutoff**2
    return np.where(known_L[:, None] & known_L, touch_LL, UNSCORED).astype(np.int8)


class Contacts:
    """Options of contacts that all sources of structures share.

    Args:
        cutoff: Angstrom.
        closed: whether a distance of just the cutoff is a contact.
        train_separation: pairs that are nearer in the chain are not learnt; validation and tests have all pairs, but
            no loss counts the nearer ones, and a range of only such pairs has no precision.
    """

    site, classes, measure = "pair", ("apart", "contact"), "p_at_l5"

    def __init__(self, cutoff: float, closed: bool, train_separation: int):
        if not cutoff > 0:
            raise UserError(f"data.source.cutoff={cutoff}: a distance in Angstrom, above 0.")
        if train_separation < 0:
            raise UserError(f"data.source.train_separation={train_separation}: at least 0.")
        self.cutoff, self.closed, self.train_separation = cutoff, closed, train_separation

    def contact(self, atom: str) -> str:
        """In words."""
        sign = "at most" if self.closed else "below"
        return f"{atom} distance {sign} {self.cutoff:g} Angstrom"

    def maps(self, table: AnnotatedTable, split: str, per_angstrom: int) -> AnnotatedTable:
        """The table whose labels were coordinates, with its contacts; its scopes tell residues that are in space."""
        known = [np.isfinite(points_L3).all(1) for points_L3 in table.labels]
        table.scopes = {"all": [np.ones_like(part) for part in known], "resolved": known}
        separation = self.train_separation if split == "train" else 0
        limit = self.cutoff * per_angstrom
        table.labels = ContactMaps(table.labels, limit, self.closed, separation)
        return table


class PdbContacts(ProteinRows, Contacts):
    """Contacts in 5,000 chains of 40 to 256 residues, all of them resolved.

    Args:
        atom: ``cb``, C-beta (of glycine C-alpha), as CASP measures; ``ca``, C-alpha, as TAPE.
        split: see `PdbChains`.
        cutoff, closed, train_separation: see `Contacts`.
    """

    tests = ("test",)

    def __init__(
        self,
        data_dir: str,
        atom: str,
        split: str,
        cutoff: float,
        closed: bool,
        train_separation: int,
    ):
        super().__init__(cutoff, closed, train_separation)
        if atom not in ATOMS:
            raise UserError(f"data.source.atom={atom}: choose {' or '.join(ATOMS)}.")
        self.name, self.atom = "contacts_pdb", atom
        self.chains = PdbChains(self.name, data_dir, split)
        atom_said = "C-alpha" if atom == "ca" else "C-beta (of glycine C-alpha)"
        self.card: dict[str, Any] = {"contact": self.contact(atom_said), "split": split}

    def digest(self) -> str:
        return self.chains.digest()

    def fetch(self) -> None:
        self.chains.files.fetch()

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        chains = (
            Labelled(chain.number, chain.name, chain.sequence, chain.points_of(self.atom))
            for chain in self.chains.of(split)
        )
        table = labelled_table(chains, tokenizer, f"data={self.name}, {split}", {})
        return self.maps(table, split, PER_ANGSTROM)
