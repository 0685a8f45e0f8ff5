"""How many atoms of each element a molecule has."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rdkit import Chem

from lit_seqlm.data.chemistry.canonical import parse
from lit_seqlm.errors import UserError, did_you_mean

ELEMENTS = ("H", "C", "N", "O", "F")  # what total energies are residualised on


def composition(smiles: str, elements: Sequence[str] = ELEMENTS) -> np.ndarray:
    """Atoms of each element, float64 (len(elements),): hydrogen counts whether written or implied.

    Raises:
        UserError: for a string that is no molecule, and for an element that is none.
    """
    molecule, reason = parse(smiles)
    if molecule is None:
        raise UserError(f"{smiles!r} has no composition: {reason}.")
    counts: Counter[str] = Counter(atom.GetSymbol() for atom in molecule.GetAtoms())
    counts["H"] += sum(atom.GetTotalNumHs() for atom in molecule.GetAtoms())
    if not counts.keys() >= set(elements):
        _check(elements)
    return np.array([counts[element] for element in elements], dtype=np.float64)


def _check(elements: Sequence[str]) -> None:
    table = Chem.GetPeriodicTable()
    known = [table.GetElementSymbol(number) for number in range(1, 119)]
    for element in elements:
        if element not in known:
            raise UserError(f"elements: there is no {element!r}. {did_you_mean(element, known)}")
