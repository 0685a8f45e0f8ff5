"""Secondary structure: NetSurfP-2.0's chains to train on, CB513, TS115 and NEW364 to test."""

# L = residues of a chain

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import UNSCORED, AnnotatedTable
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_source import Dropped
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.structures import EIGHT, read_chains, split_of_chains
from lit_seqlm.errors import UserError

THREE = ("H", "E", "C")  # TAPE's order
TRAIN_ON = ("all", "resolved")
ON = "1"


@dataclass
class Chain:
    """A chain with a letter of structure for each residue, and named parts of it."""

    name: str
    sequence: str
    letters: str
    scopes: dict[str, np.ndarray]


class SecondaryStructure:
    """Classes of residues by DSSP.

    Three classes are learnt from NetSurfP-2.0's chains as FLIP gives them (like TAPE's training set, but not its
    split), eight from chains of the Protein Data Bank. Scopes: ``all`` counts every residue, also unresolved ones,
    which are labelled C: TAPE's loader does, so its numbers are of this kind; ``resolved`` those with coordinates;
    of CB513 ``masked`` those of its 513 domains, ``masked_resolved`` both.

    Args:
        classes: 3 or 8.
        train_on: ``all`` residues, as TAPE, or the ``resolved`` ones.
        drop_overlaps: leave out training chains that are also test chains; they are told.
    """

    site = "residue"

    def __init__(self, data_dir: str, classes: int, train_on: str, drop_overlaps: bool):
        if classes not in (3, 8):
            raise UserError(f"data.source.classes={classes}: choose 3 or 8.")
        if train_on not in TRAIN_ON:
            raise UserError(f"data.source.train_on={train_on}: choose {' or '.join(TRAIN_ON)}.")
        self.name = "secondary_structure"
        self.classes = THREE if classes == 3 else EIGHT
        self.measure = f"q{classes}"
        self.tests = ("cb513", "ts115", "new364") if classes == 3 else ("cb513", "ts115")
        self.train_on, self.drop_overlaps = train_on, drop_overlaps
        self.files = PublishedFiles("secondary_structure", self.name, data_dir)
        self.structures = PublishedFiles("structures", self.name, data_dir)
        self.card: dict[str, Any] = {
            "train": "NetSurfP-2.0, FLIP's split" if classes == 3 else "5,000 chains of the PDB",
            "cb513": "511 full chains, not the 513 domains; scope masked selects the domains' residues",
        }

    def digest(self) -> str:
        return self.files.digest() + (self.structures.digest() if len(self.classes) == 8 else "")

    def fetch(self) -> None:
        self.files.fetch()
        if len(self.classes) == 8:
            self.structures.fetch()

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        self.fetch()
        chains = list(self._chains(split))
        tested = set()
        if self.drop_overlaps and split in ("train", "valid"):
            tested = {chain.sequence for test in self.tests for chain in self._chains(test)}
        return self._table(chains, tested, split, tokenizer)

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        from lit_seqlm.data.proteins.rows import protein_rows

        return protein_rows(path, column, tokenizer)

    def _chains(self, split: str) -> Iterator[Chain]:
        if split in ("cb513", "ts115"):
            yield from _hhblits(self.files[f"{split.upper()}_HHblits.csv"], len(self.classes))
        elif len(self.classes) == 8:
            for chain in read_chains(self.structures):
                if split_of_chains().split_of(chain.name) == split:
                    yield Chain(chain.name, chain.sequence, chain.dssp, {})
        else:
            yield from _netsurfp(self.files["netsurfp2_splits.zip"], split)

    def _table(
        self, chains: list[Chain], tested: set[str], split: str, tokenizer: Any
    ) -> AnnotatedTable:
        number_of = {letter: number for number, letter in enumerate(self.classes)}
        table = AnnotatedTable([], [], labels := [], {})
        for place, chain in enumerate(chains, start=1):
            found = clean(chain.sequence, tokenizer.ambiguous, False)
            if chain.sequence in tested:
                found = found.__class__(None, "tested", "is also a test chain")
            if found.sequence is None:
                table.dropped.append(Dropped(place, f"{chain.name}: {found.reason}"))
                continue
            if strange := set(chain.letters) - set(self.classes):
                raise UserError(
                    f"data={self.name}, {split}, {chain.name}: no class {sorted(strange)[0]!r}."
                )
            numbers = np.array([number_of[letter] for letter in chain.letters], np.int8)
            scopes = {"all": np.ones(len(numbers), bool), **chain.scopes}
            if split == "train" and self.train_on == "resolved" and "resolved" in scopes:
                numbers[~scopes["resolved"]] = UNSCORED
            labels.append(numbers)
            table.names.append(chain.name)
            table.sequences.append(found.sequence)
            for name, part in scopes.items():
                table.scopes.setdefault(name, []).append(part)
        return table


def _netsurfp(path: Any, split: str) -> Iterator[Chain]:
    """FLIP's three FASTA files: sequences, H E C with the split in the header, and which residues are resolved."""
    with zipfile.ZipFile(path) as archive:
        sequences, masks, labels = (
            dict(_fasta(archive.read(f"splits/{name}.fasta").decode()))
            for name in ("sequences", "mask", "sampled")
        )
    plain = {_word(header): text for header, text in sequences.items()}
    resolved = {_word(header): text for header, text in masks.items()}
    for header, letters in labels.items():
        told = dict(word.split("=") for word in header.split()[1:])
        name = _word(header)
        its = (
            "new364"
            if told["SET"] == "test"
            else "valid"
            if told["VALIDATION"] == "True"
            else "train"
        )
        if its == split:
            mask = np.array(list(resolved[name])) == ON
            yield Chain(name, plain[name], letters, {"resolved": mask})


def _hhblits(path: Any, num_classes: int) -> Iterator[Chain]:
    """A CSV file of PS4, whose cells are separated by spaces and whose column names begin with one."""
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file, skipinitialspace=True), start=1):
            resolved = np.array(row["disorder"].split(), float) > 0
            scopes = {"resolved": resolved}
            if "CB513" in path.name:
                masked = np.array(row["cb513_mask"].split(), float) > 0
                scopes |= {"masked": masked, "masked_resolved": masked & resolved}
            letters = "".join(row[f"dssp{num_classes}"].split())
            yield Chain(
                f"{path.name.split('_')[0]}-{number}",
                "".join(row["input"].split()),
                letters,
                scopes,
            )


def _fasta(text: str) -> Iterator[tuple[str, str]]:
    for record in text.split(">")[1:]:
        header, _, body = record.partition("\n")
        yield header, "".join(body.split())


def _word(header: str) -> str:
    return header.split()[0]
