"""What every dataloader yields and every objective reads."""

# B = sequences, T = tokens, K = targets, C = covariates

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Token ids and what to predict at each of them.

    Attributes:
        tokens_BT: inputs.
        targets_BT: what the objective scores at each position.
        mask_BT: the positions that count; null when all do.
        valid_BT: the tokens that are no padding, which is on the right; null when all are.
        labels_BK: of whole sequences, float64 in the data's own units, NaN where missing.
        covariates_BC: float64, what a label may be residualised on, such as counts of atoms.
        rows_B: where each sequence stands in its split.
        segments_BT: of a packed row, which of its sequences each token belongs to, rising from 0; null where
            a row is one sequence.
        sites: classes of residues (B, T), of pairs of them (B, T, T) or of whole sequences (B,); -1 where
            there is nothing to score.
        continues: these rows go on where the previous batch's rows ended, so its state is theirs.
        lr_scale: this step's learning rate over the usual one (AWD-LSTM: segment length over the
            base length).
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    mask_BT: Tensor | None = None
    valid_BT: Tensor | None = None
    labels_BK: Tensor | None = None
    covariates_BC: Tensor | None = None
    rows_B: Tensor | None = None
    segments_BT: Tensor | None = None
    sites: Tensor | None = None
    continues: bool = False
    lr_scale: float = 1.0

    @property
    def num_tokens(self) -> int:
        """Without padding."""
        return self.tokens_BT.numel() if self.valid_BT is None else int(self.valid_BT.sum())

    def conditions(self) -> dict[str, Tensor]:
        """What a model is given beside tokens and state: only what this batch has."""
        known = {"valid_BT": self.valid_BT, "segments_BT": self.segments_BT}
        return {name: value for name, value in known.items() if value is not None}

    def silenced(self) -> "Batch":
        """The same sequences with nothing to score: for a process that only keeps step with others."""
        labels_BK, sites = self.labels_BK, self.sites
        return replace(
            self,
            mask_BT=torch.zeros_like(self.tokens_BT, dtype=torch.bool),
            labels_BK=None if labels_BK is None else torch.full_like(labels_BK, torch.nan),
            sites=None if sites is None else torch.full_like(sites, -1),
        )

    def pieces(self, length: int | None) -> Iterator["Batch"]:
        """Copies of so many tokens each, in order; overlapping windows, which have a mask, stay whole."""
        if length is None or self.mask_BT is not None:
            length = self.tokens_BT.size(1)
        for start in range(0, self.tokens_BT.size(1), length):
            cut = slice(start, start + length)
            yield replace(
                self,
                tokens_BT=self.tokens_BT[:, cut].clone(),
                targets_BT=self.targets_BT[:, cut].clone(),
                mask_BT=None if self.mask_BT is None else self.mask_BT.clone(),
                continues=self.continues or start > 0,
            )
