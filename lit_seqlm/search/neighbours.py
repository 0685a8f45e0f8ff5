"""What a search answers: the nearest remembered states of every query, best first."""

# M = queries, K = neighbours

from dataclasses import dataclass

import torch
from torch import Tensor

METRICS = ("l2", "dot")
LOW = 0xFFFFFFFF  # the lower half of 64 bits


@dataclass
class Neighbours:
    """Rows are best first; ties go to the lower slot.

    `measure_MK` is the SQUARED distance for the metric "l2" (smaller is nearer, +inf where there is none) or the
    inner product for "dot" (larger is nearer, -inf where there is none). `slots_MK` is -1 where there is none.
    """

    measure_MK: Tensor
    slots_MK: Tensor


def missing(metric: str) -> float:
    """The measure of a neighbour that is not there."""
    return float("inf") if metric == "l2" else float("-inf")


def no_neighbours(queries_MD: Tensor) -> Neighbours:
    """The answer of an empty memory: (M, 0)."""
    measure_MK = queries_MD.new_empty((len(queries_MD), 0)).float()
    return Neighbours(measure_MK, measure_MK.long())


def best_first(measure_MK: Tensor, slots_MK: Tensor, metric: str, k: int | None) -> Neighbours:
    """Sort by (measure, slot) and keep k: equal states then come out the same however they were found.

    Both are packed into one integer, for one sort: the bits of a float, read as an integer, are in its order once those
    of negative numbers are turned round. Slots are below 2^31.
    """
    measure_MK = measure_MK.masked_fill(slots_MK < 0, missing(metric))
    sign = 1 if metric == "l2" else -1
    ordered_MK = _turn((sign * measure_MK).view(torch.int32).long())
    packed_MK = (ordered_MK << 32) | (slots_MK & LOW)
    packed_MK = packed_MK.sort(dim=-1).values[:, :k]
    measure_MK = sign * _turn(packed_MK >> 32).int().view(torch.float32)
    slots_MK = packed_MK & LOW
    return Neighbours(measure_MK, slots_MK.masked_fill(slots_MK == LOW, -1))


def _turn(bits_MK: Tensor) -> Tensor:
    """Between the bits of floats and integers in the same order; its own inverse."""
    return bits_MK ^ ((bits_MK >> 31) & 0x7FFFFFFF)
