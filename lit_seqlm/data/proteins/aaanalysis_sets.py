"""Labelled proteins out of an installed package, `aaanalysis`: no download."""

# N = proteins, L = residues of one

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.data.annotated_table import AnnotatedTable
from lit_seqlm.data.chemistry.rows import read_rows
from lit_seqlm.data.label_rows import LabelRows, read_label_rows
from lit_seqlm.data.proteins.labelled import Labelled, labelled_table
from lit_seqlm.data.proteins.property_source import Proteins
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.reading import Reading
from lit_seqlm.data.proteins.rows import ProteinRows
from lit_seqlm.data.splits import Fractions, distinct_split
from lit_seqlm.data.targets import plain_target
from lit_seqlm.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

PACKAGE = "aaanalysis==1.1.0"
SEQUENCE_SETS = {  # what 1 means, and 0
    "SEQ_AMYLO": "amyloidogenic hexapeptide",
    "SEQ_CAPSID": "viral capsid protein",
    "SEQ_DISULFIDE": "has a disulfide bond",
    "SEQ_LOCATION": "in the cytoplasm, not in the plasma membrane",
    "SEQ_SOLUBLE": "soluble when overexpressed",
    "SEQ_TAIL": "viral tail protein",
    "DOM_GSEC": "substrate of gamma-secretase",
}
RESIDUE_SETS = {
    "AA_CASPASE3": "beside a cleavage site of caspase-3",
    "AA_FURIN": "beside a cleavage site of furin",
    "AA_LDR": "in a long disordered region",
    "AA_MMP2": "beside a cleavage site of MMP-2",
    "AA_RNABIND": "binds RNA",
    "AA_SA": "accessible to solvent",
}
DOMAIN = ("jmd_n", "tmd", "jmd_c")  # columns: the transmembrane segment and its flanks
PARTS = ("whole", "domain")
FAULTS = {"SEQ_LOCATION": "its sequences lack all of E, F, I, L, P and Q, in the package itself"}


class PackagedFiles:
    """The package's tables, which is neither imported nor run, each refused where it is another one."""

    def __init__(self, name: str):
        self.name = name
        self._files: PublishedFiles | None = None

    def __getitem__(self, name: str) -> Path:
        """The table of a set."""
        if self._files is None:
            spec = importlib.util.find_spec("aaanalysis")
            folders = (spec.submodule_search_locations or []) if spec else []
            if not folders:
                raise UserError(
                    f"data={self.name} needs the package that ships the set. Run: pip install {PACKAGE} "
                    "(--no-deps is enough), or use a table of your own: data=protein_table data.source.path=FILE.csv."
                )
            self._files = PublishedFiles("aaanalysis", self.name, str(folders[0]))
        self._files.fetch()
        return self._files[f"{name}.tsv"]


class AaanalysisSet(Proteins):
    """Two classes of proteins: one of ``SEQ_*``, or ``DOM_GSEC``.

    The package has no splits. A random one lets relatives of the test be trained on, and these sets have families
    (viral proteins above all), so its numbers are higher than for proteins of a new family.

    Args:
        name: the set, as the package calls it.
        part: ``whole``; of DOM_GSEC also ``domain``: the transmembrane segment and ten residues on each side.
        valid_fraction, test_fraction, split_seed: of the draw.
        stop, illegal: see `Reading`.
        features: see `Proteins`.
    """

    def __init__(
        self,
        name: str,
        part: str,
        valid_fraction: float,
        test_fraction: float,
        split_seed: int,
        stop: str,
        illegal: str,
        features: str,
    ):
        _check_set(name, part)
        super().__init__(
            f"aaanalysis ({name})",
            "classification",
            [plain_target(name.partition("_")[2].lower(), "label", "")],
            "random",
            Fractions(valid_fraction, test_fraction),
            split_seed,
            Reading(stop, illegal),
            features,
        )
        self.set, self.part, self.files = name, part, PackagedFiles(self.name)

    def digest(self) -> str:
        return PACKAGE

    def fetch(self) -> None:
        self.files[self.set]

    def read(self) -> LabelRows:
        path = self.files[self.set]
        if self.set in FAULTS:
            log.warning("data=%s: %s", self.name, FAULTS[self.set])
        rows = read_label_rows(path, "sequence", ["label"], None, self.kind)
        if self.part == "domain":
            found = read_rows(str(path), "sequence", DOMAIN)
            rows.sequences = ["".join(row.columns[name] for name in DOMAIN) for row in found]
        return rows


class AaanalysisResidues(ProteinRows):
    """Two classes of residues: one of ``AA_*``, divided at random by whole proteins (see `AaanalysisSet`).

    Most sets have few of one class (AA_CASPASE3 .4 %), where the share of right answers says little.

    Args:
        name: the set, as the package calls it.
        valid_fraction, test_fraction, split_seed: of the draw.
    """

    site, measure, tests, classes = "residue", "accuracy", ("test",), ("0", "1")

    def __init__(self, name: str, valid_fraction: float, test_fraction: float, split_seed: int):
        if name not in RESIDUE_SETS:
            raise UserError(f"data.source.name={name}: {did_you_mean(name, RESIDUE_SETS)}")
        self.name, self.set = f"aaanalysis ({name})", name
        self.fractions, self.split_seed = Fractions(valid_fraction, test_fraction), split_seed
        self.files = PackagedFiles(self.name)
        self.card: dict[str, Any] = {"one": RESIDUE_SETS[name], "split": "random, by proteins"}
        self._proteins: list[Labelled] = []

    def digest(self) -> str:
        return PACKAGE

    def fetch(self) -> None:
        self.files[self.set]

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        if not self._proteins:
            self._proteins = list(residue_labels(self.files[self.set]))
        sequences = [protein.sequence for protein in self._proteins]
        parts = distinct_split(sequences, self.fractions, self.split_seed)
        chosen = [self._proteins[place] for place in parts[split]]
        return labelled_table(chosen, tokenizer, f"data={self.name}, {split}", {})


def residue_labels(path: Path) -> Iterator[Labelled]:
    """Proteins of a table whose cells of labels are ``0,1,...``, one for each residue.

    Raises:
        UserError: for another label.
    """
    for row in read_rows(str(path), "sequence", ["entry", "label"]):
        signs = row.columns["label"].split(",")
        if wrong := set(signs) - {"0", "1"}:
            raise UserError(f"{path}, row {row.number}: a label is {wrong.pop()!r}, not 0 or 1.")
        labels_L = np.array([sign == "1" for sign in signs], np.int8)
        scopes = {"all": np.ones(len(labels_L), bool)}
        yield Labelled(row.number, row.columns["entry"], row.smiles, labels_L, scopes)


def _check_set(name: str, part: str) -> None:
    if name in RESIDUE_SETS:
        raise UserError(
            f"data.source.name={name}: its residues are labelled. Say data=aaanalysis_residues task=label_sites."
        )
    if name == "DOM_GSEC_PU":
        raise UserError(
            f"data.source.name={name}: it has no negatives, only unknown ones, so nothing can be measured. "
            "Say data.source.name=DOM_GSEC."
        )
    if name not in SEQUENCE_SETS:
        raise UserError(f"data.source.name={name}: {did_you_mean(name, SEQUENCE_SETS)}")
    if part not in PARTS or (part == "domain" and not name.startswith("DOM")):
        raise UserError(
            f"data.source.part={part}: choose whole, or domain for data.source.name=DOM_GSEC."
        )
