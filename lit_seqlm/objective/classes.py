"""Which class a labelled site is of: a residue, a pair of residues, a whole sequence."""

# N = labelled sites, C = classes, T = tokens

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.objective.loss import Loss


class SiteClasses:
    """Cross-entropy over the classes, in nats, of every site that has a label.

    A sum over sites and their number, so sequences of any lengths may be cut into micro-batches in any way.
    """

    def __call__(self, logits: Tensor, sites: Tensor) -> Loss:
        """The loss.

        Args:
            logits: (B, T, C) of residues, (B, T, T, C) of pairs, (B, C) of sequences.
            sites: the same shape without C, int64; what is below 0 is not scored.
        """
        assert logits.shape[:-1] == sites.shape, f"{logits.shape} for {sites.shape}"
        scored = sites >= 0
        logits_NC, targets_N = logits[scored].float(), sites[scored]
        nll_N = F.cross_entropy(logits_NC, targets_N, reduction="none").double()
        hits_N = logits_NC.detach().argmax(-1) == targets_N
        return Loss(nll_N.sum(), len(targets_N), nll_N.detach(), targets_N, hits_N)


def far_pairs(sites: Tensor, separation: int) -> Tensor:
    """Classes of pairs (B, T, T) without those of tokens fewer than `separation` apart; 0 leaves all, of any site."""
    if separation <= 0:
        return sites
    place_T = torch.arange(sites.size(-1), device=sites.device)
    return sites.masked_fill((place_T[:, None] - place_T).abs() < separation, -1)
