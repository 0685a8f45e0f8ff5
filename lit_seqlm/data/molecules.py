"""What published sets of molecules and a user's own table have in common."""

# N = molecules, K = targets, C = covariates

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from lit_seqlm.data.chemistry.composition import ELEMENTS
from lit_seqlm.data.chemistry.enumeration import random_smiles
from lit_seqlm.data.chemistry.fingerprint import fingerprints
from lit_seqlm.data.chemistry.scaffold import murcko_scaffold
from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.label_rows import LabelRows
from lit_seqlm.data.molecule_forms import MoleculeForms, each, molecule_forms, without_stereo
from lit_seqlm.data.molecule_rows import atom_counts, molecule_rows
from lit_seqlm.data.property_source import Dropped, PropertyTable
from lit_seqlm.data.splits import (
    Fractions,
    check_method,
    column_split,
    random_split,
    scaffold_balanced,
    scaffold_strict,
)
from lit_seqlm.data.targets import Target

log = logging.getLogger(__name__)


class Molecules:
    """Rows of SMILES and labels, made canonical, divided, with what cannot be read set apart.

    Args:
        name: as the user says it.
        kind: ``regression`` or ``classification``.
        targets: columns of the labels.
        split: ``random``, ``scaffold_balanced``, ``scaffold_strict``, or ``column``: each row says.
        fractions: of validation and test; not used by ``column``.
        split_seed: of the draw; the same for every run, so that runs can be compared.
        cache_dir: where canonical SMILES of large sets are kept.
    """

    covariates = tuple(f"num_{element}" for element in ELEMENTS)

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
        self.name, self.kind, self.targets = name, kind, targets
        self.split, self.fractions, self.split_seed = check_method(split), fractions, split_seed
        self.cache_dir = cache_dir
        self._rows: LabelRows | None = None
        self._forms: dict[bool, MoleculeForms] = {}
        self._splits: dict[str, np.ndarray] = {}

    def read(self) -> LabelRows:
        """All rows, with the split of each as a mark where ``split=column``."""
        raise NotImplementedError

    def table(self, split: str, tokenizer: Any) -> PropertyTable:
        """A split; SMILES as `tokenizer.isomeric` says."""
        rows, forms = self._ready(tokenizer.isomeric)
        places = self._splits[split]
        good = [place for place in places if not forms.reasons[place]]
        return PropertyTable(
            sequences=[forms.smiles[place] for place in good],
            written=[rows.sequences[place] for place in good],
            labels_NK=rows.labels_NK[good],
            covariates_NC=forms.counts_NC[good],
            rows_N=rows.numbers_N[good],
            dropped=[
                Dropped(int(rows.numbers_N[place]), forms.reasons[place])
                for place in places
                if forms.reasons[place]
            ],
        )

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

    def _ready(self, isomeric: bool) -> tuple[LabelRows, MoleculeForms]:
        if self._rows is None:
            self._rows = self.read()
        if isomeric not in self._forms:
            self._forms[isomeric] = molecule_forms(
                self._rows.sequences, isomeric, self.cache_dir, f"data={self.name}"
            )
        if not self._splits:
            self._splits = self._divide(self._rows, self._forms[isomeric])
        return self._rows, self._forms[isomeric]

    def _divide(self, rows: LabelRows, forms: MoleculeForms) -> dict[str, np.ndarray]:
        """Rows of each split; what is no molecule goes to training, and is reported there."""
        if self.split == "column":
            return column_split(rows.marks, rows.numbers_N, f"data={self.name}")
        good = np.array([not reason for reason in forms.reasons])
        places = np.flatnonzero(good)
        if self.split == "random":
            parts = random_split(len(places), self.fractions, self.split_seed)
        else:
            parts = self._by_scaffold([forms.smiles[place] for place in places])
        splits = {split: places[parts[split]] for split in SPLITS}
        splits["train"] = np.sort(np.concatenate([splits["train"], np.flatnonzero(~good)]))
        return splits

    def _by_scaffold(self, smiles: list[str]) -> dict[str, np.ndarray]:
        scaffolds = self.groups(smiles)
        if self.split == "scaffold_strict":
            return scaffold_strict(scaffolds, self.fractions)
        itself = each(smiles, without_stereo, self.cache_dir, f"data={self.name}")
        groups = [found or own for found, own in zip(scaffolds, itself, strict=True)]
        return scaffold_balanced(groups, self.fractions, self.split_seed)
