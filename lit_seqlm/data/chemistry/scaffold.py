"""What two molecules share: their ring systems, or all but their stereo marks."""

from rdkit.Chem import rdmolops
from rdkit.Chem.Scaffolds import MurckoScaffold

from lit_seqlm.data.chemistry.canonical import canonicalize, parse
from lit_seqlm.errors import UserError

ACYCLIC = ""


def murcko_scaffold(smiles: str) -> str:
    """Rings and the chains between them, without stereo marks; empty for a molecule without rings.

    Bemis and Murcko, J. Med. Chem. 39, 2887 (1996): side chains are cut off.

    Raises:
        UserError: for a string that is no molecule.
    """
    molecule, reason = parse(smiles)
    if molecule is None:
        raise UserError(f"{smiles!r} has no scaffold: {reason}.")
    rdmolops.RemoveStereochemistry(molecule)
    return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)


def stereo_free(smiles: str) -> str:
    """A key that stereo isomers share: the canonical SMILES without stereo marks and isotopes.

    A string that is no molecule is its own key.
    """
    return canonicalize(smiles, isomeric=False).smiles or smiles
