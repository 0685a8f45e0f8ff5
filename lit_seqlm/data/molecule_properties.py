"""Published sets of molecules: QM8, QM9 and MoleculeNet."""

import importlib.util
import logging
from pathlib import Path

import numpy as np

from lit_seqlm.data.label_rows import LabelRows, read_label_rows
from lit_seqlm.data.molecules import Molecules
from lit_seqlm.data.property_manifest import WHOLE, obtain_set, read_property_set
from lit_seqlm.data.splits import Fractions
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

PACKED_PARTS = tuple(f"data/qm9_part{part}.csv" for part in (1, 2, 3))
PACKED_FRACTIONS = Fractions(valid=0.09, test=0.10)  # the shares of the published split
OWN_FRACTIONS = Fractions(valid=0.1, test=0.1)


class MoleculeProperties(Molecules):
    """A set of `property_sets.yaml`, in its published split or another one.

    QM9 may come from the package `qm9pack` instead, whose molecules are the same 130,831; it says
    nothing of the split, so theirs is then random, 81/9/10, by `split_seed`.

    Args:
        name: the manifest's key.
        data_dir: looked into first; a download goes there.
        tasks: how many of its targets; null: all but those that repeat another one's numbers (QM8:
            12 of 16, since the PBE0 columns are there twice).
        split: ``published``, or ``random``, ``scaffold_balanced``, ``scaffold_strict`` (80/10/10).
    """

    def __init__(
        self,
        name: str,
        data_dir: str,
        cache_dir: str | None,
        tasks: int | None,
        split: str,
        split_seed: int,
    ):
        self.entry = read_property_set(name)
        choices = {len(chosen): chosen for chosen in (self.entry.targets, self.entry.usual_targets)}
        if tasks not in (None, *choices):
            raise UserError(
                f"data={name}: data.source.tasks={tasks}. Accepted: null, "
                f"{', '.join(map(str, sorted(choices)))}."
            )
        if split == "published" and WHOLE in self.entry.files and not self.entry.split_column:
            raise UserError(
                f"data={name} has no published split here. Say data.source.split=scaffold_balanced."
            )
        super().__init__(
            name,
            self.entry.kind,
            self.entry.usual_targets if tasks is None else choices[tasks],
            "column" if split == "published" else split,
            OWN_FRACTIONS,
            split_seed,
            cache_dir,
        )
        self.data_dir = Path(data_dir)
        self._paths: dict[str, Path] = {}

    def fetch(self) -> None:
        """Find the files, or download them, and check that they are the published ones.

        Raises:
            UserError: for a file that is missing or not a correct copy.
        """
        if self._paths or self._is_packed():
            return
        self._paths = obtain_set(self.entry, self.data_dir)

    def digest(self) -> str:
        """Empty where the manifest vouches for it."""
        return self.entry.package if self._is_packed() else ""

    def read(self) -> LabelRows:
        self.fetch()
        if self._is_packed():
            return self._read_package()
        columns = [target.column for target in self.targets]
        mark_column = self.entry.split_column or None
        parts = []
        for split, path in self._paths.items():
            part = read_label_rows(
                path, self.entry.sequence_column, columns, mark_column, self.kind
            )
            if split != WHOLE:
                part.marks = [split] * len(part.sequences)
            parts.append(part)
        return LabelRows.joined(parts)

    def _is_packed(self) -> bool:
        """Whether the file is missing and the package that ships the same molecules is installed."""
        if not self.entry.package or self.entry.paths(self.data_dir)[WHOLE].exists():
            return False
        name = self.entry.package.partition("=")[0]
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"data={self.name}: {self.entry.paths(self.data_dir)[WHOLE]} is missing. Let "
                "paths.data_dir (or LIT_SEQLM_DATA) name the folder that has "
                f"{self.entry.files[WHOLE].path}, or run: pip install {self.entry.package} "
                "(104 MB; its split is then random)."
            )
        return True

    def _read_package(self) -> LabelRows:
        """The package's tables, which is neither imported nor run."""
        spec = importlib.util.find_spec(self.entry.package.partition("=")[0])
        folder = Path(next(iter(spec.submodule_search_locations or []))) if spec else Path()
        columns = [self.entry.packed[target.name] for target in self.targets]
        rows = LabelRows.joined(
            [
                read_label_rows(folder / part, "SMILES", columns, None, self.kind)
                for part in PACKED_PARTS
            ]
        )
        rows.numbers_N = np.arange(1, len(rows.sequences) + 1)
        if self.split == "column":
            log.warning(
                "data=%s: from %s, which has no split: a RANDOM 81/9/10 split by split_seed=%d, not "
                "the published one. Numbers are not comparable with the paper's.",
                self.name,
                self.entry.package,
                self.split_seed,
            )
            self.split, self.fractions = "random", PACKED_FRACTIONS
        return rows
