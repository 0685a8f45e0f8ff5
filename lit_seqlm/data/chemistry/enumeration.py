"""The many SMILES of one molecule."""

from rdkit import Chem

from lit_seqlm.data.chemistry.canonical import parse


def random_smiles(smiles: str, seed: int) -> str:
    """The same molecule, from another atom and along other branches: a function of (smiles, seed).

    Bjerrum, arXiv 1703.07076. It keeps the stereo marks that the string has; a string that is no
    molecule comes back as it is.
    """
    molecule, _ = parse(smiles)
    if molecule is None:
        return smiles
    # RDKit takes 0 for no seed at all.
    return Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed or 2**31 - 1)[0]
