"""Precision of the strongest predicted contacts, "P@L/5", by the five definitions in use.

They differ in which pairs take part, how many are picked and what is averaged, so their numbers cannot be compared.
Each function is of one protein: scores in [0, 1]; labels 1, 0 and -1, which is no label. Equal scores are ranked as
the map is read, row by row; the official codes leave that to the sorting routine.
"""

# L = residues, N = pairs, P = proteins, K = picked pairs

from typing import NamedTuple

import numpy as np

NEAREST = 6  # residues that a pair must be apart
FIFTH = 5
LIKELY = 0.5
ESM_RANGES = {"local": (3, 6), "short": (6, 12), "medium": (12, 24), "long": (24, None)}
TAPE_RANGES = {name: ESM_RANGES[name] for name in ("short", "medium", "long")}
ESM_SHARES = {"p_at_l": 10, "p_at_l2": 5, "p_at_l5": 2}  # tenths of L
TENTHS = 10

DEFINITIONS = {
    "tape_torch": "upper triangle, 6 or more apart; k = L/5 of the full length; pooled in a batch, mean over batches; "
    "a picked pair without label subtracts 1 (TAPE, tape/models/modeling_utils.py)",
    "tape2019_train": "both triangles, so each pair twice; k = a fifth of the batch's longest protein; pooled in a "
    "batch, mean over batches (TAPE 2019, tape/tasks/ContactMapTask.py)",
    "tape2019_analysis": "by range; k = a fifth of the PAIRS in it; the share of picked contacts with p > 0.5; mean "
    "over proteins; no precision (TAPE 2019, analysis/contact_prediction)",
    "plm_megatron": "both triangles, 6 or more apart, so P@(L/10) over unique pairs; k = L/5; right over picked of "
    "all proteins; its training log is of each batch (ProteinLM, pretrain/tasks/protein/finetune_utils.py)",
    "esm": "upper triangle, by range; k = L/5 of the resolved length; precision; mean over proteins (Rao et al. 2021)",
}


class Share(NamedTuple):
    """What is summed over proteins before it is divided."""

    right: float
    picked: float


def top(score_N: np.ndarray, count: int) -> np.ndarray:
    """Places (K,) of the largest scores, largest first, equal ones in their order; all where there are fewer."""
    count = min(count, len(score_N))
    if count <= 0:
        return np.empty(0, np.int64)
    bound = np.partition(score_N, len(score_N) - count)[len(score_N) - count]
    above = np.flatnonzero(score_N > bound)
    kept = np.concatenate([above, np.flatnonzero(score_N == bound)[: count - len(above)]])
    return kept[np.lexsort((kept, -score_N[kept]))]


def separations(length: int) -> np.ndarray:
    """j - i of all pairs (L, L)."""
    place_L = np.arange(length)
    return place_L[None] - place_L[:, None]


def tape_torch(score_LL: np.ndarray, label_LL: np.ndarray) -> Share:
    """Definition A. `PairwiseContactPredictionHead.compute_precision_at_l5`.

    Masked scores are 0, not -inf, and take part: where fewer than k pairs have a score above 0 they are picked, and
    their label counts as it is, -1 too. L includes residues without label. Pairs nearer than 6 have the label -1
    there, in the data. A batch's number is the sum of `right` over that of `picked`.
    """
    apart_LL = separations(len(label_LL))
    far_LL = np.where(np.abs(apart_LL) < NEAREST, -1, label_LL)
    masked_LL = np.where((far_LL != -1) & (apart_LL >= NEAREST), score_LL, 0.0)
    picked_K = top(masked_LL.ravel(), len(label_LL) // FIFTH)
    return Share(float(far_LL.ravel()[picked_K].sum(dtype=np.int64)), len(picked_K))


def tape2019_train(score_LL: np.ndarray, label_LL: np.ndarray, longest: int) -> Share:
    """Definition B. `ContactMapTask.loss_function`; `longest` is the length of the batch's longest protein.

    Masked pairs lose 1000 of their logit, so they are picked last, and what is masked is not counted.
    """
    valid_LL = (label_LL != -1) & (np.abs(separations(len(label_LL))) >= NEAREST)
    picked_K = top(score_LL[valid_LL], longest // FIFTH)
    return Share(float(label_LL[valid_LL][picked_K].sum(dtype=np.int64)), len(picked_K))


def tape2019_analysis(score_LL: np.ndarray, label_LL: np.ndarray) -> dict[str, float]:
    """Definition C, by range. `evaluate_contact_prediction_metrics.precision_cutoff`.

    Pairs without label take part and are no contacts. A range of fewer than five pairs has no number.
    """
    values = {}
    for name, (least, limit) in TAPE_RANGES.items():
        diagonals = range(least, min(len(label_LL), limit or len(label_LL)))
        if not diagonals:
            continue
        score_N = np.concatenate([np.diagonal(score_LL, offset) for offset in diagonals])
        label_N = np.concatenate([np.diagonal(label_LL, offset) for offset in diagonals])
        picked_K = top(score_N, len(score_N) // FIFTH)
        if not len(picked_K):
            continue
        contact_K = label_N[picked_K] == 1
        likely = int((contact_K & (score_N[picked_K] > LIKELY)).sum())
        values[name] = likely / (int(contact_K.sum()) or len(picked_K))
    return values


def plm_megatron(score_LL: np.ndarray, label_LL: np.ndarray) -> Share:
    """Definition D. `compute_precision_at_l5`; L is the length after truncation.

    Masked scores are 0 as in A; a picked pair without label counts 0.
    """
    valid_LL = (label_LL != -1) & (np.abs(separations(len(label_LL))) >= NEAREST)
    picked_K = top(np.where(valid_LL, score_LL, 0.0).ravel(), len(label_LL) // FIFTH)
    right_K = np.where(valid_LL, label_LL, 0).ravel()[picked_K]
    return Share(float(right_K.sum(dtype=np.int64)), len(picked_K))


def esm(score_LL: np.ndarray, label_LL: np.ndarray) -> dict[str, dict[str, float]]:
    """Definition E: for each range ``p_at_l``, ``p_at_l2``, ``p_at_l5`` and ``auc``, the mean of P@(L/10) to P@L.

    L counts residues that have a label with any other. Only labelled pairs are picked; where they are fewer than k,
    the rest counts as wrong. A range without labelled pairs has no numbers, nor has a k of 0.
    """
    resolved = int((label_LL != -1).any(1).sum())
    cuts = np.arange(1, TENTHS + 1) * resolved // TENTHS
    apart_LL, values = separations(len(label_LL)), {}
    for name, (least, limit) in ESM_RANGES.items():
        inside_LL = (label_LL != -1) & (apart_LL >= least)
        if limit is not None:
            inside_LL &= apart_LL < limit
        score_N, label_N = score_LL[inside_LL], label_LL[inside_LL]
        if not len(score_N) or not resolved:
            continue
        found_K = np.cumsum(label_N[top(score_N, resolved)], dtype=np.int64)
        right = found_K[np.minimum(cuts, len(found_K)) - 1]
        known = {tenths: right[tenths - 1] / cut for tenths, cut in enumerate(cuts, 1) if cut}
        values[name] = {key: float(known[at]) for key, at in ESM_SHARES.items() if at in known}
        values[name]["auc"] = float(np.mean(list(known.values())))
    return values


def mean_over_batches(share_P2: np.ndarray, batch_of_P: np.ndarray) -> float | None:
    """The mean of each batch's right over picked (A, B, and D's training log); null where nothing was picked.

    A batch that picked nothing has no number. Such a mean changes with how proteins are put into batches.
    """
    batch_of_P = np.unique(batch_of_P, return_inverse=True)[1]
    right, picked = (np.bincount(batch_of_P, weights=share_P2[:, side]) for side in (0, 1))
    return float((right[picked > 0] / picked[picked > 0]).mean()) if (picked > 0).any() else None
