"""From files of SMILES to shards of tokens: canonical, each molecule once, shuffled, counted."""
