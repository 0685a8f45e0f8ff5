"""Which class a labelled site is of: a residue, a pair of residues, a whole sequence."""

# N = labelled sites, C = classes

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
