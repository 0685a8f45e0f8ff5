"""What RDKit is asked: canonical SMILES, composition, scaffolds, fingerprints; and rows of files."""
