"""What published sets of molecules and a user's own table have in common."""

# N = molecules, K = targets, C = covariates

from collections.abc import Iterator
from typing import Any

import numpy as np

from lit_seqlm.data.chemistry.composition import ELEMENTS
from lit_seqlm.data.chemistry.enumeration import random_smiles
from lit_seqlm.data.chemistry.fingerprint import fingerprints
from lit_seqlm.data.chemistry.scaffold import murcko_scaffold
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.label_rows import LabelRows
from lit_seqlm.data.molecule_forms import each, molecule_forms, without_stereo
from lit_seqlm.data.molecule_rows import atom_counts, molecule_rows
from lit_seqlm.data.row_source import Forms, RowSource
from lit_seqlm.data.splits import (
    METHODS,
    Fractions,
    random_split,
    scaffold_balanced,
    scaffold_strict,
)
from lit_seqlm.data.targets import Target


class Molecules(RowSource):
    """Rows of SMILES and labels, made canonical, divided, with what cannot be read set apart.

    Args:
        split: ``random``, ``scaffold_balanced``, ``scaffold_strict``, or ``column``: each row says.
        cache_dir: where canonical SMILES of large sets are kept.
        name, kind, targets, fractions, split_seed: see `RowSource`.
    """

    methods = METHODS
    covariates = tuple(f"num_{element}" for element in ELEMENTS)
    has_variants, group_word, mark_word = True, "scaffolds", "stereo"

    def __init__(
        self,
        name: str,
        kind: str,
        targets: list[Target],
        split: str,
        fractions: Fractions,
        split_seed: int,
        cache_dir: str | None,
    ):
        super().__init__(name, kind, targets, split, fractions, split_seed)
        self.fractions: Fractions = fractions
        self.cache_dir = cache_dir

    def style(self, tokenizer: Any) -> bool:
        return tokenizer.isomeric

    def forms(self, rows: LabelRows, tokenizer: Any) -> Forms:
        """Canonical SMILES, isomeric or not."""
        found = molecule_forms(
            rows.sequences, tokenizer.isomeric, self.cache_dir, f"data={self.name}"
        )
        return Forms(found.smiles, found.reasons, found.counts_NC)

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        """Molecules of any other file; SMILES as `tokenizer.isomeric` says."""
        return molecule_rows(path, column, tokenizer.isomeric)

    def covariates_of(self, sequences: list[str]) -> np.ndarray:
        return atom_counts(sequences)

    def variant(self, sequence: str, seed: int) -> str:
        """The same molecule written from another atom on."""
        return random_smiles(sequence, seed)

    def identities(self, written: list[str], merged: bool) -> list[str]:
        """A key that two rows share if they are the same molecule; `merged` overlooks stereo."""
        what = f"data={self.name}"
        found = molecule_forms(written, True, self.cache_dir, what).smiles
        return each(found, without_stereo, self.cache_dir, what) if merged else found

    def groups(self, sequences: list[str]) -> list[str]:
        """Murcko scaffolds; empty for a molecule without rings."""
        return each(sequences, murcko_scaffold, self.cache_dir, f"data={self.name}")

    def fingerprints(self, sequences: list[str]) -> np.ndarray:
        """ECFP4 counts, uint8 (N, 2048)."""
        return fingerprints(sequences)

    def divide(self, sequences: list[str]) -> dict[str, np.ndarray]:
        if self.split == "random":
            return random_split(len(sequences), self.fractions, self.split_seed)
        return self._by_scaffold(sequences)

    def _by_scaffold(self, smiles: list[str]) -> dict[str, np.ndarray]:
        scaffolds = self.groups(smiles)
        if self.split == "scaffold_strict":
            return scaffold_strict(scaffolds, self.fractions)
        itself = each(smiles, without_stereo, self.cache_dir, f"data={self.name}")
        groups = [found or own for found, own in zip(scaffolds, itself, strict=True)]
        return scaffold_balanced(groups, self.fractions, self.split_seed)
