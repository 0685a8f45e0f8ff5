"""How many sites have the right class: residues, or whole chains, pooled over a split."""

# B = sequences of a batch, N = sequences, D = distinct ones, S = scopes, C = classes

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_seqlm.metrics.bootstrap import Interval, of_equal, ratio_interval
from lit_seqlm.metrics.collect import joined

ALL = "all"  # every site that has a label
UNSCORED = -1  # as a label: no label; what else is below zero is a class that cannot be predicted
SAMPLES = 1000
MOST_NAMED = 20  # classes whose recall is among the numbers


class SiteAccuracy(Metric):
    """Share of right sites, micro: over all sites of all sequences, as TAPE counts Q3, Q8 and top-1.

    ``MEASURE`` of all labelled sites and ``MEASURE_SCOPE`` of those in a scope, each with the ends ``_low`` and
    ``_high`` of a 95 % interval that draws sequences, copies of one together; ``recall/CLASS``; ``sites``,
    ``sites_SCOPE``, ``sequences``, ``distinct_sequences``. What nothing was counted for has no number.

    Args:
        classes: their names.
        measure: what the share is called: ``q3``.
        scopes: names of parts of the sites, beside all of them.
        same_N: of each sequence, by its number, one that its copies share; null: there are no copies.
    """

    full_state_update = False
    rows: list[Tensor]
    sequences: list[Tensor]
    counts: list[Tensor]
    confusions: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        measure: str,
        scopes: Sequence[str] = (),
        same_N: np.ndarray | None = None,
    ):
        super().__init__()
        self.classes, self.measure, self.same_N = list(classes), measure, same_N
        self.scopes = [ALL, *(scope for scope in scopes if scope != ALL)]
        for state in ("rows", "sequences", "counts"):
            self.add_state(state, [], dist_reduce_fx="cat")
        shape = (len(self.scopes), len(classes), len(classes))
        self.add_state("confusions", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        predicted: Tensor,
        sites: Tensor,
        rows_B: Tensor,
        scopes: Mapping[str, Tensor] | None = None,
        sequences_B: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            predicted: classes (B,) of chains or (B, T) of residues.
            sites: true ones of the same shape; -1 is no site, another number below 0 a class none can predict.
            rows_B: numbers of the rows; each is given once.
            scopes: for each scope but ``all``, which sites are in it, bool in the same shape.
            sequences_B: which sequence each row is of, where long ones are cut; null: every row its own.
        """
        assert predicted.shape == sites.shape, f"{predicted.shape} for {sites.shape}"
        predicted, sites = predicted.detach().reshape(len(sites), -1), sites.reshape(len(sites), -1)
        labelled, right = sites != UNSCORED, predicted == sites
        counts, confusions = [], []
        for scope in self.scopes:
            inside = labelled if scope == ALL else labelled & self._scope(scopes, scope, sites)
            counts.append(torch.stack([(right & inside).sum(1), inside.sum(1)], 1))
            known = inside & (sites >= 0)
            cell = sites[known] * len(self.classes) + predicted[known]
            found = torch.bincount(cell, minlength=len(self.classes) ** 2)
            confusions.append(found.view(len(self.classes), -1))
        self.confusions = self.confusions + torch.stack(confusions)
        self.counts.append(torch.stack(counts, 1))
        self.rows.append(rows_B.detach())
        self.sequences.append((rows_B if sequences_B is None else sequences_B).detach())

    def collected(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the sequences (N,), rising, and of each (right, all) sites in each scope, int64 (N, S, 2)."""
        if not len(self.rows):
            return np.empty(0, np.int64), np.empty((0, len(self.scopes), 2), np.int64)
        first = np.unique(joined(self.rows), return_index=True)[1]
        sequence, counts = joined(self.sequences)[first], joined(self.counts)[first]
        sequence_N, place = np.unique(sequence, return_inverse=True)
        counts_NS2 = np.zeros((len(sequence_N), len(self.scopes), 2), np.int64)
        np.add.at(counts_NS2, place, counts)
        return sequence_N, counts_NS2

    def confusion(self, scope: str = ALL) -> np.ndarray:
        """Sites (C, C) by true class, in rows, and predicted class; without those of a class none can predict."""
        return self.confusions[self.scopes.index(scope)].cpu().numpy()

    def recall(self, scope: str = ALL) -> dict[str, float]:
        """Of each class that has a site, the share of its sites that are found."""
        matrix_CC = self.confusion(scope)
        total_C = matrix_CC.sum(1)
        return {
            name: float(matrix_CC[place, place] / total_C[place])
            for place, name in enumerate(self.classes)
            if total_C[place]
        }

    def interval(self, scope: str = ALL, num_samples: int = SAMPLES, seed: int = 0) -> Interval:
        """Of the share in a scope; sequences are drawn."""
        counts_D2 = self._distinct()[:, self.scopes.index(scope)]
        return _interval(counts_D2, num_samples, seed)

    def compute(self) -> dict[str, float]:
        """Numbers by name; empty where nothing has been scored."""
        counts_NS2, counts_DS2 = self.collected()[1], self._distinct()
        numbers: dict[str, float] = {}
        for place, scope in enumerate(self.scopes):
            suffix = "" if scope == ALL else f"_{scope}"
            counts_D2 = counts_DS2[:, place]
            if not counts_D2[:, 1].any():
                continue
            found, name = _interval(counts_D2, SAMPLES, 0), f"{self.measure}{suffix}"
            numbers |= {name: found.mean, f"sites{suffix}": float(counts_D2[:, 1].sum())}
            if not np.isnan(found.low):  # of one sequence nothing is known
                numbers |= {f"{name}_low": found.low, f"{name}_high": found.high}
        if numbers:
            numbers["sequences"] = float((counts_NS2[:, 0, 1] > 0).sum())
            numbers["distinct_sequences"] = float((counts_DS2[:, 0, 1] > 0).sum())
        if len(self.classes) <= MOST_NAMED:
            numbers |= {f"recall/{name}": value for name, value in self.recall().items()}
        return numbers

    def _distinct(self) -> np.ndarray:
        """What `collected` counts, summed over copies: int64 (D, S, 2)."""
        sequence_N, counts_NS2 = self.collected()
        return of_equal(counts_NS2, sequence_N if self.same_N is None else self.same_N[sequence_N])

    @staticmethod
    def _scope(scopes: Mapping[str, Tensor] | None, scope: str, sites: Tensor) -> Tensor:
        assert scopes is not None, f"scope {scope} is missing"
        return scopes[scope].reshape(sites.shape)


def _interval(counts_D2: Any, num_samples: int, seed: int) -> Interval:
    has_sites_D = counts_D2[:, 1] > 0
    return ratio_interval(counts_D2[has_sites_D, 0], counts_D2[has_sites_D, 1], num_samples, seed)
