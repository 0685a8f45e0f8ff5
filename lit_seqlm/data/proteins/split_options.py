"""How a corpus is to be divided."""

from dataclasses import dataclass
from pathlib import Path

from lit_seqlm.data.proteins.homology import Mmseqs
from lit_seqlm.data.proteins.split_lists import HELD_OUT
from lit_seqlm.errors import UserError

KINDS = ("random", "cluster", "family")


@dataclass
class SplitOptions:
    """What `experiments/split_proteins.py` is told.

    Attributes:
        file: anything that proteins are read from, a database of BLAST too.
        column: of the sequences, where it has columns; null: ``sequence``.
        output: a folder that is not there yet.
        split: random, cluster or family.
        sizes: proteins that ``valid`` and ``test`` should have.
        min_len, max_len: residues; null: of any length. The data that uses the list has to say the same.
        clusters: lines ``cluster, accession`` made elsewhere; null: the tool makes them.
        families: lines ``accession, family``.
        test_families: those that are the test; empty: drawn.
        search: whether the tool looks for relatives of the test in what is trained on.
    """

    file: Path
    column: str | None
    output: Path
    split: str
    sizes: dict[str, int]
    min_len: int
    max_len: int | None
    seed: int
    gapped: bool
    clusters: Path | None
    families: Path | None
    test_families: tuple[str, ...]
    search: bool
    tool: Mmseqs

    def check(self) -> None:
        """UserError for options that do not go together."""
        for split in HELD_OUT:
            if self.sizes[split] < 1:
                raise UserError(f"--{split} {self.sizes[split]}: at least 1.")
        if self.min_len < 1 or (self.max_len is not None and self.max_len < self.min_len):
            raise UserError(
                f"--min-len {self.min_len} --max-len {self.max_len}: no length is both."
            )
        if (self.split == "family") != (self.families is not None):
            raise UserError(
                "--split family and --families FILE (accession, tab, family) need each other."
            )
        if self.split != "cluster" and self.clusters is not None:
            raise UserError(
                f"--clusters has no effect with --split {self.split}. Say --split cluster."
            )
        if self.split != "family" and self.test_families:
            raise UserError("--test-families needs --split family.")
