"""What labelled sets of whole proteins and a user's own table have in common."""

# N = proteins, K = targets

import logging
from typing import Any

import numpy as np
from scipy import sparse

from lit_seqlm.data.label_rows import LabelRows
from lit_seqlm.data.proteins.features import FEATURES, Positions, composition
from lit_seqlm.data.proteins.reading import Reading
from lit_seqlm.data.proteins.rows import ProteinRows
from lit_seqlm.data.row_source import Forms, RowSource
from lit_seqlm.data.splits import Fractions, distinct_split
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

MEASURES = ("spearman", "mse")  # TAPE's of a number


class Proteins(ProteinRows, RowSource):
    """Rows of sequences and labels, cleaned as the tokenizer says, divided.

    ``split=random`` draws among distinct sequences, so that none is in two splits. Relatives may be: where
    the set has families, such a split flatters, and one by clusters belongs beside it, which is ``split=column``
    of a table. The audit knows no groups, as who is related is a matter of alignment
    (`experiments/protein_leak.py` does that); nor does a protein have another way to be written.

    Args:
        split: ``random``, or ``column``: each row says.
        reading: of what is not written in residues alone.
        features: of simple models: ``composition``, residues and pairs of neighbours, or ``positions``, which
            residue stands where, for variants of one protein.
        name, kind, targets, fractions, split_seed: see `RowSource`.
    """

    methods = ("random", "column")
    covariates: tuple[str, ...] = ("num_residues",)
    has_variants, group_word, mark_word = False, "", "B Z U O and X"

    def __init__(
        self,
        name: str,
        kind: str,
        targets: list[Target],
        split: str,
        fractions: Fractions | None,
        split_seed: int,
        reading: Reading,
        features: str,
    ):
        super().__init__(name, kind, targets, split, fractions, split_seed)
        if features not in FEATURES:
            raise UserError(f"data.source.features={features}: choose {' or '.join(FEATURES)}.")
        self.reading, self.features = reading, features
        self._positions: Positions | None = None

    def style(self, tokenizer: Any) -> tuple[str, bool]:
        return tokenizer.ambiguous, tokenizer.gapped

    def forms(self, rows: LabelRows, tokenizer: Any) -> Forms:
        """Upper-case residues.

        Raises:
            UserError: for a row that cannot be read, unless such rows are to be left out.
        """
        found = [self.reading.read(one, *self.style(tokenizer)) for one in rows.sequences]
        for place, one in enumerate(found):
            if self.reading.is_error(one):
                mark = f", {rows.marks[place]}" if rows.marks else ""
                raise UserError(
                    f"data={self.name}{mark}, row {rows.numbers_N[place]}: {one.reason}. "
                    "data.source.illegal=drop leaves such rows out, and reports them."
                )
        if num_lowered := sum(one.lowered for one in found):
            log.warning("data=%s: %d sequences had lower-case letters, read as upper case", self.name,
                        num_lowered)  # fmt: skip
        sequences = [one.sequence or "" for one in found]
        good = np.flatnonzero([one.sequence is not None for one in found])
        covariates_NC = np.zeros((len(found), len(self.covariates)))
        covariates_NC[good] = self.covariates_of([sequences[place] for place in good])
        return Forms(sequences, [one.reason for one in found], covariates_NC)

    def covariates_of(self, sequences: list[str]) -> np.ndarray:
        """How long each is, float64 (N, 1)."""
        return np.array([len(sequence) for sequence in sequences], np.float64)[:, None]

    def variant(self, sequence: str, seed: int) -> str:
        return sequence

    def identities(self, written: list[str], merged: bool) -> list[str]:
        """The sequence; `merged` reads B, Z, U and O as X. Empty where there is none."""
        ambiguous = "to_x" if merged else "keep"
        found = (self.reading.read(one, ambiguous, True) for one in written)
        return [one.sequence or "" for one in found]

    def groups(self, sequences: list[str]) -> list[str]:
        """None are known."""
        return [""] * len(sequences)

    def fingerprints(self, sequences: list[str]) -> sparse.csr_matrix:
        """As `features` says, (N, F)."""
        if self.features == "composition":
            return composition(sequences)
        if self._positions is None:
            self._positions = Positions(self.readable())
        return self._positions(sequences)

    def divide(self, sequences: list[str]) -> dict[str, np.ndarray]:
        assert self.fractions is not None
        return distinct_split(sequences, self.fractions, self.split_seed)
