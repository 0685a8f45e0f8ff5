"""Which surroundings of atoms occur in a molecule, and how often."""

# N = molecules, F = features

from collections.abc import Sequence

import numpy as np
from rdkit.Chem import rdFingerprintGenerator

from lit_seqlm.data.chemistry.canonical import parse
from lit_seqlm.errors import UserError

NUM_FEATURES = 2048
RADIUS = 2  # bonds around an atom; the 4 of ECFP4 is its diameter


def fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """ECFP4 counts, uint8 (N, F): Morgan's surroundings of radius 2, folded to 2,048 features.

    Rogers and Hahn, J. Chem. Inf. Model. 50, 742 (2010). Counts above 255 stay at 255.

    Raises:
        UserError: at the first string that is no molecule.
    """
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=NUM_FEATURES)
    counts_NF = np.empty((len(smiles), NUM_FEATURES), dtype=np.uint8)
    for row, one in enumerate(smiles):
        molecule, reason = parse(one)
        if molecule is None:
            raise UserError(f"molecule {row + 1}, {one!r}, has no fingerprint: {reason}.")
        np.minimum(
            generator.GetCountFingerprintAsNumPy(molecule),
            255,
            out=counts_NF[row],
            casting="unsafe",
        )
    return counts_NF
