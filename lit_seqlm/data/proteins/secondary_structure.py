"""Secondary structure: NetSurfP-2.0's chains or the PDB's to train on, CB513, TS115 and NEW364 to test."""

# L = residues of a chain

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import UNSCORED, AnnotatedTable
from lit_seqlm.data.proteins.fasta import parse_fasta
from lit_seqlm.data.proteins.labelled import Labelled, classes_of, comparable, labelled_table
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.rows import ProteinRows
from lit_seqlm.data.proteins.structures import PdbChains
from lit_seqlm.errors import UserError

THREE = ("H", "E", "C")  # TAPE's order
EIGHT = tuple("GHIBESTC")  # NetSurfP-2.0's order; C is what DSSP leaves blank
GROUPS = dict(zip(EIGHT, "HHHEECCC", strict=True))  # of eight the three: TAPE's and NetSurfP-2.0's
BLANK = " -L~_"  # other signs that files have for C
CLASSES = {3: THREE, 8: EIGHT}
TRAIN_ON = ("all", "resolved")
HHBLITS = {"cb513": "CB513_HHblits.csv", "ts115": "TS115_HHblits.csv"}


def numbers_of(num_classes: int) -> dict[str, int]:
    """The class of each letter of DSSP, or of its three groups."""
    classes = CLASSES[num_classes]
    found = {letter: number for number, letter in enumerate(classes)}
    if num_classes == 3:
        found |= {letter: found[group] for letter, group in GROUPS.items()}
    return found | dict.fromkeys(BLANK, found["C"])


class SecondaryStructure(ProteinRows):
    """Classes of residues by DSSP.

    NetSurfP-2.0's chains, as FLIP gives them, are like TAPE's training set but not its split, and have three classes;
    the chains of the PDB have eight. Scopes: ``all`` counts every residue, also unresolved ones, which are labelled C:
    TAPE's loader does, so its numbers are of this kind; ``resolved`` those with coordinates; of CB513 ``masked`` those
    of its 513 domains, and ``masked_resolved`` both.

    Args:
        classes: 3 or 8.
        pdb_split: null learns from NetSurfP-2.0's chains. A list (see `PdbChains`) learns from chains of the PDB, of 40
            to 256 residues, all of them resolved; those that it holds out are the test ``pdb``.
        train_on: ``all`` residues, as TAPE, or the ``resolved`` ones; other splits keep every label.
        drop_test_overlaps: leave out training and validation chains whose sequence is a test's; they are told.
    """

    site = "residue"

    def __init__(
        self,
        name: str,
        data_dir: str,
        classes: int,
        pdb_split: str | None,
        train_on: str,
        drop_test_overlaps: bool,
    ):
        _check(classes, pdb_split, train_on)
        self.name, self.num_classes, self.classes = name, classes, CLASSES[classes]
        self.measure = f"q{classes}"
        self.tests = (*HHBLITS, "new364" if pdb_split is None else "pdb")
        self.train_on, self.drop_test_overlaps = train_on, drop_test_overlaps
        self.files = PublishedFiles("secondary_structure", name, data_dir)
        self.chains = None if pdb_split is None else PdbChains(name, data_dir, pdb_split)
        said = f"chains of the PDB, {pdb_split}" if pdb_split else "NetSurfP-2.0 in FLIP's split"
        self._read: dict[str, list[Labelled]] = {}
        self.card: dict[str, Any] = {
            "learnt_from": f"{said}, {train_on} residues",
            "cb513": "511 full chains, not the 513 domains; the scope masked has the domains' residues",
        }

    def digest(self) -> str:
        return self.files.digest() + (self.chains.digest() if self.chains else "")

    def fetch(self) -> None:
        self.files.fetch()
        if self.chains:
            self.chains.files.fetch()

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        self.fetch()
        where, tested = f"data={self.name}, {split}", {}
        if self.drop_test_overlaps and split not in self.tests:
            of_tests = ((test, chain) for test in self.tests for chain in self.chains_of(test))
            tested = {comparable(chain.sequence): test for test, chain in of_tests}
        number_of, chains = numbers_of(self.num_classes), []
        for chain in self.chains_of(split):
            numbers_L = classes_of(chain.label, number_of, f"{where}, {chain.name}")
            scopes = {"all": np.ones(len(numbers_L), bool), **chain.scopes}
            chains.append(replace(chain, label=numbers_L, scopes=scopes))
        table = labelled_table(chains, tokenizer, where, tested)
        return table if split != "train" or self.train_on == "all" else resolved_only(table)

    def chains_of(self, split: str) -> list[Labelled]:
        """Chains of a split, read once; the label is a string of letters."""
        if split not in self._read:
            if split in HHBLITS:
                found = _hhblits(self.files[HHBLITS[split]], split, self.num_classes)
                self._read[split] = list(found)
            elif self.chains:
                self._read[split] = list(_pdb(self.chains, "test" if split == "pdb" else split))
            else:
                self._read |= _netsurfp(self.files["netsurfp2_splits.zip"])
        return self._read[split]


def _check(classes: int, pdb_split: str | None, train_on: str) -> None:
    if classes not in CLASSES:
        raise UserError(f"data.source.classes={classes}: choose 3 or 8.")
    if train_on not in TRAIN_ON:
        raise UserError(f"data.source.train_on={train_on}: choose {' or '.join(TRAIN_ON)}.")
    if classes == 8 and pdb_split is None:
        raise UserError(
            "data.source.classes=8: NetSurfP-2.0's chains are labelled H, E and C here. Say "
            "data=secondary_structure_pdb to learn eight classes from chains of the PDB."
        )


def resolved_only(table: AnnotatedTable) -> AnnotatedTable:
    """Its labels without those of residues that have no coordinates."""
    table.labels = [
        np.where(part, label, UNSCORED).astype(label.dtype)
        for label, part in zip(table.labels, table.scopes["resolved"], strict=True)
    ]
    return table


def _pdb(chains: PdbChains, split: str) -> Iterator[Labelled]:
    for chain in chains.of(split):
        scopes = {"resolved": np.ones(len(chain.sequence), bool)}
        yield Labelled(chain.number, chain.name, chain.sequence, chain.dssp, scopes)


def _netsurfp(path: Path) -> dict[str, list[Labelled]]:
    """FLIP's three FASTA files: sequences, H E C with the split in the header, and which residues are resolved."""
    with zipfile.ZipFile(path) as archive:
        sequences, masks, labels = (
            _bodies(archive, member) for member in ("sequences", "mask", "sampled")
        )
    found: dict[str, list[Labelled]] = {"train": [], "valid": [], "new364": []}
    for number, (name, (said, letters)) in enumerate(labels.items(), start=1):
        is_valid = "VALIDATION=True" in said
        split = "new364" if "SET=test" in said else "valid" if is_valid else "train"
        resolved = np.frombuffer(masks[name][1].encode(), np.uint8) == ord("1")
        scopes = {"resolved": resolved}
        found[split].append(Labelled(number, name, sequences[name][1], letters, scopes))
    return found


def _hhblits(path: Path, test: str, num_classes: int) -> Iterator[Labelled]:
    """A CSV file of PS4, whose cells are separated by spaces and whose column names begin with one."""
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, skipinitialspace=True), start=1):
            resolved = np.array(row["disorder"].split(), float) > 0
            scopes = {"resolved": resolved}
            if test == "cb513":
                masked = np.array(row["cb513_mask"].split(), float) > 0
                scopes |= {"masked": masked, "masked_resolved": masked & resolved}
            letters = "".join(row[f"dssp{num_classes}"].split())
            name = f"{test}-{number}"
            yield Labelled(number, name, "".join(row["input"].split()), letters, scopes)


def _bodies(archive: zipfile.ZipFile, member: str) -> dict[str, tuple[str, str]]:
    """Of each record of a FASTA file by name: the rest of its header, and its body."""
    lines = archive.read(f"splits/{member}.fasta").decode().splitlines()
    found = {}
    for record in parse_fasta(lines, f"{archive.filename}, {member}.fasta", False):
        name, _, rest = record.header.partition(" ")
        found[name] = (rest, record.sequence)
    return found
