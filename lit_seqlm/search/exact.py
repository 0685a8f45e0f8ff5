"""Exact search by blocks, on any device: a limited search holds no queries x keys matrix beyond one block."""

# M = queries, R = remembered keys, B = keys of a block, K = neighbours, D = size of a key

import torch
from torch import Tensor

from lit_seqlm.search.neighbours import Neighbours, best_first, no_neighbours

SPARE = 16  # candidates beyond k, so that rounding in the first pass cannot lose a true neighbour
GATHERED = 2**20  # numbers gathered at a time when measures are recomputed (4 MiB)


def search_exact(
    queries_MD: Tensor, keys_RD: Tensor, k: int | None, metric: str, block: int
) -> Neighbours:
    """The k best keys of every query; all of them with k=None.

    One matrix product ranks a block: q.x for "dot" and q.x - |x|^2 / 2 for "l2" (the same order as -|q - x|^2).
    The expansion of the square cancels for near keys, so the measures of those chosen are computed again, directly.

    Args:
        queries_MD: (M, D) float32.
        keys_RD: (R, D) float32 on the same device; the row is the slot.
        block: keys a matrix product sees at a time.

    Returns:
        min(k, R) neighbours of each query.
    """
    if not len(keys_RD) or not len(queries_MD) or k == 0:
        return no_neighbours(queries_MD)
    if k is None or k + SPARE >= len(keys_RD):
        slots_MK = torch.arange(len(keys_RD), device=queries_MD.device).expand(len(queries_MD), -1)
        return best_first(_all_measures(queries_MD, keys_RD, metric, block), slots_MK, metric, k)
    scores_MK, slots_MK = _candidates(queries_MD, keys_RD, k + SPARE, metric, block)
    if metric == "l2":
        scores_MK = measure(queries_MD, keys_RD, slots_MK, metric)
    return best_first(scores_MK, slots_MK, metric, k)


def _candidates(
    queries_MD: Tensor, keys_RD: Tensor, k: int, metric: str, block: int
) -> tuple[Tensor, Tensor]:
    """Scores (larger is nearer) and slots of the k best, in no order: a top-k that runs over blocks."""
    best: tuple[Tensor, Tensor] | None = None
    centre_D = queries_MD.mean(0) if metric == "l2" else None  # small norms round little
    if centre_D is not None:
        queries_MD = queries_MD - centre_D
    for start in range(0, len(keys_RD), block):
        keys_BD = keys_RD[start : start + block]
        if centre_D is not None:
            keys_BD = keys_BD - centre_D
            half_B = keys_BD.square().sum(-1) / 2
            scores_MB = torch.addmm(half_B, queries_MD, keys_BD.T, beta=-1)
        else:
            scores_MB = queries_MD @ keys_BD.T
        scores_MK, slots_MK = scores_MB.topk(min(k, len(keys_BD)), sorted=False)
        slots_MK = slots_MK + start
        if best is not None:
            scores_MK = torch.cat([best[0], scores_MK], dim=-1)
            slots_MK = torch.cat([best[1], slots_MK], dim=-1)
            if scores_MK.shape[-1] > k:
                scores_MK, order_MK = scores_MK.topk(k, sorted=False)
                slots_MK = slots_MK.gather(-1, order_MK)
        best = (scores_MK, slots_MK)
    assert best is not None
    return best


def _all_measures(queries_MD: Tensor, keys_RD: Tensor, metric: str, block: int) -> Tensor:
    """Measures of every pair, without expanding the square."""
    if metric == "dot":
        return queries_MD @ keys_RD.T
    direct = "donot_use_mm_for_euclid_dist"
    parts = [
        torch.cdist(queries_MD, keys_BD, compute_mode=direct).square_()
        for keys_BD in keys_RD.split(block)
    ]
    return torch.cat(parts, dim=-1)


def measure(queries_MD: Tensor, keys_RD: Tensor, slots_MK: Tensor, metric: str) -> Tensor:
    """Measures (M, K) of the chosen keys, computed directly; keys are gathered a slice of queries at a time.

    A slot of -1 gives a number without meaning.
    """
    num_queries, k = slots_MK.shape
    measure_MK = queries_MD.new_empty((num_queries, k))
    step = max(1, GATHERED // max(1, k * keys_RD.shape[-1]))
    for start in range(0, num_queries, step):
        part = slice(start, start + step)
        keys_MKD = keys_RD[slots_MK[part].clamp_min(0)]
        if metric == "l2":
            keys_MKD -= queries_MD[part, None]
            measure_MK[part] = torch.linalg.vector_norm(keys_MKD, dim=-1).square_()
        else:
            measure_MK[part] = (keys_MKD @ queries_MD[part, :, None]).squeeze(-1)
    return measure_MK
