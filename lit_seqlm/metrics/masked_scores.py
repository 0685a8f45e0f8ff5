"""Perplexities of masked tokens, each by its definition, with what a resampling of sequences makes of them."""

# N = masked tokens, V = vocabulary

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.metrics.bootstrap import interval
from lit_seqlm.metrics.perplexity import exp

SAMPLES = 1000

DEFINITIONS = {
    "ppl": "exp of the mean negative log-likelihood of selected residues; the softmax is over the whole vocabulary. A "
    "selected residue that was kept (one in ten) is seen by the model, which lowers this number below any floor of "
    "n-grams: 17.9 of a model that knows frequencies alone becomes about 14.8",
    "ppl_hidden": "the same, of those selected residues alone that the model read as <mask>: comparable with n-grams",
    "ppl_standard": "of all selected residues, as ppl, renormalised over the 20 standard ones; other targets are "
    "skipped",
    "ppl_standard_hidden": "the same, of those selected residues alone that the model read as <mask>: exp of the mean "
    "of -ln(p(true) / sum of p over the 20), over hidden residues whose true letter is one of the 20",
    "accuracy": "share of selected residues that are the likeliest token",
    "expected_accuracy": "mean probability of the true residue, of all selected ones",
    "tape_perplexity": "mean over tokens of exp(predictive entropy): what TAPE's first code calls Perplexity",
    "tape_ece": "exp of the cross-entropy: what TAPE's first code calls ECE, and everybody else perplexity",
    "accuracy_hidden": "accuracy where the model read <mask>",
    "pseudo_ppl": "exp of the mean nll, every residue masked alone in its sequence: what a two-sided n-gram sees, too",
}


@dataclass
class MaskedScores:
    """What a model says of masked tokens, kept for each.

    Attributes:
        standard_ids: of the 20 residues; empty where a vocabulary has no such part.
        parts: of each batch: nll, standard nll (NaN where the target is none of them), entropy, hit, whether the mask
            was read, sequence.
    """

    standard_ids: list[int]
    parts: list[np.ndarray] = field(default_factory=list)

    def update(
        self, log_prob_NV: Tensor, targets_N: Tensor, hidden_N: Tensor, sequence_N: Tensor
    ) -> None:
        """Add selected tokens.

        Args:
            hidden_N: whether the model read the mask there, and not a token.
            sequence_N: which sequence of the split each belongs to.
        """
        log_prob_NV = log_prob_NV.double()
        nll_N = -log_prob_NV.gather(1, targets_N[:, None])[:, 0]
        entropy_N = -(log_prob_NV.exp() * log_prob_NV).nan_to_num(nan=0.0).sum(1)
        hits_N = log_prob_NV.argmax(1) == targets_N
        standard_N = torch.full_like(nll_N, torch.nan)
        if self.standard_ids:
            ids = torch.tensor(self.standard_ids, device=targets_N.device)
            mass_N = torch.logsumexp(log_prob_NV[:, ids], 1)
            standard_N = torch.where(torch.isin(targets_N, ids), nll_N + mass_N, standard_N)
        columns = (
            nll_N,
            standard_N,
            entropy_N,
            hits_N.double(),
            hidden_N.double(),
            sequence_N.double(),
        )
        self.parts.append(torch.stack(columns, 1).cpu().numpy())

    def compute(self, seed: int = 0) -> dict[str, float]:
        """Numbers of `DEFINITIONS`, but for the last; 95 % intervals of ``ppl`` by a bootstrap over sequences."""
        nll_N, standard_N, entropy_N, hits_N, read_N, sequence_N = np.concatenate(self.parts).T
        owner_N, hidden_N = sequence_N.astype(np.int64), read_N == 1
        found = interval(nll_N, owner_N, SAMPLES, seed)
        numbers = {
            "nll": float(nll_N.mean()),
            "ppl": found.mean,
            "ppl_low": found.low,
            "ppl_high": found.high,
            "accuracy": float(hits_N.mean()),
            "expected_accuracy": float(np.exp(-nll_N).mean()),
            "tape_perplexity": float(np.exp(entropy_N).mean()),
            "tape_ece": exp(float(nll_N.mean())),
            "tokens": float(len(nll_N)),
            "sequences": float(len(np.unique(sequence_N))),
        }
        if hidden_N.any():
            masked = interval(nll_N[hidden_N], owner_N[hidden_N], SAMPLES, seed)
            numbers |= {"ppl_hidden": masked.mean, "ppl_hidden_low": masked.low,
                        "ppl_hidden_high": masked.high}  # fmt: skip
            numbers["accuracy_hidden"] = float(hits_N[hidden_N].mean())
        kept_N = ~np.isnan(standard_N)
        if kept_N.any():
            numbers["ppl_standard"] = exp(float(standard_N[kept_N].mean()))
        if (both_N := kept_N & hidden_N).any():
            numbers["ppl_standard_hidden"] = exp(float(standard_N[both_N].mean()))
        return numbers
