"""What is known of sites without looking at any sequence: how often each class is, and how near contacts are."""

# B = sequences, T = tokens, C = classes, S = separations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAMES = {"residue": "majority", "chain": "majority", "pair": "separation"}
HALF = 0.5  # of a site more is counted for each class: none has the probability 0 or 1


class SiteBaseline:
    """Log-probabilities of the classes, from how often they are among the training labels.

    Those of pairs depend on how far its residues are apart, and beyond what was seen are those of the farthest.

    Args:
        labels: of each training sequence (L,), (L, L) or one number; what is below zero is no label.
        site: ``residue``, ``pair`` or ``chain``.
        num_classes: of a site.
    """

    def __init__(self, labels: Iterable[Any], site: str, num_classes: int):
        self.site, self.name = site, NAMES[site]
        counts_SC = np.zeros((1, num_classes))
        for label in labels:
            label_N = np.atleast_1d(label).ravel()
            apart_N = _separations(len(label)).ravel() if site == "pair" else 0 * label_N
            known_N = label_N >= 0
            size = max(len(counts_SC), int(apart_N.max(initial=0)) + 1)
            cells_N = apart_N[known_N].astype(np.int64) * num_classes + label_N[known_N]
            found = np.bincount(cells_N, minlength=size * num_classes).reshape(size, num_classes)
            counts_SC = np.pad(counts_SC, ((0, size - len(counts_SC)), (0, 0))) + found
        shares_SC = counts_SC + HALF
        self.log_prob_SC = np.log(shares_SC / shares_SC.sum(1, keepdims=True))

    def logits(self, shape: Sequence[int]) -> Tensor:
        """For sites (B,), (B, T) or (B, T, T); float64, with a last axis for the classes."""
        apart = _separations(shape[-1]) if self.site == "pair" else np.zeros(1, np.int64)
        log_prob = self.log_prob_SC[np.minimum(apart, len(self.log_prob_SC) - 1)]
        return torch.from_numpy(log_prob).expand(*shape, -1)


def _separations(length: int) -> np.ndarray:
    place_L = np.arange(length)
    return np.abs(place_L[None] - place_L[:, None])
