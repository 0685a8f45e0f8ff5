"""Where attention looks, against how far apart things are in space (Ross et al. 2022, attention analysis).

Some tokens of a sequence stand for points in space: an atom, a residue. Their attention map is compared with which
pairs of points are near, by the cosine of the two as vectors.
"""

# L = layers, H = heads, T = tokens, P = points, C = classes of pairs, S = sequences

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lit_seqlm.metrics.bootstrap import TAILS, Interval, sampled_means

OWN, PERMUTED = "trained", "points permuted"
ALIKE, NEIGHBOURS = "alike on all pairs", "neighbours in the string"


class DistanceClass(NamedTuple):
    """Pairs further apart than `above` and not further than `most`, in the unit of the distances."""

    name: str
    above: float
    most: float


def point_maps(maps_LHTT: np.ndarray, places_P: np.ndarray) -> np.ndarray:
    """Attention between points, (L, P, P): the mean of the heads, (A + A^T) / 2, a diagonal of zeros.

    Rows are not made to sum to one again after the other tokens are dropped.

    Args:
        maps_LHTT: weights of one sequence; row m says where token m looks.
        places_P: the tokens that are points.
    """
    mean_LTT = np.asarray(maps_LHTT, dtype=np.float64).mean(1)
    kept_LPP = mean_LTT[:, places_P][:, :, places_P]
    symmetric_LPP = (kept_LPP + kept_LPP.transpose(0, 2, 1)) / 2
    return symmetric_LPP * ~np.eye(len(places_P), dtype=bool)


def distances(positions_P3: np.ndarray) -> np.ndarray:
    """Euclidean distances (P, P) of points in space, in their unit."""
    return np.linalg.norm(positions_P3[:, None] - positions_P3[None], axis=-1)


def classes_of(distances_PP: np.ndarray, classes: tuple[DistanceClass, ...]) -> np.ndarray:
    """Which pairs of two points are in each class, bool (C, P, P)."""
    inside_CPP = [(distances_PP > one.above) & (distances_PP <= one.most) for one in classes]
    return np.stack(inside_CPP) & ~np.eye(len(distances_PP), dtype=bool)


def cosines(maps_LPP: np.ndarray, targets_CPP: np.ndarray) -> np.ndarray:
    """sum_ij A_ij M_ij / (|A| |M|) of every layer and target, (L, C); NaN where either is all zero.

    Targets are 0 or 1, so for attention that is alike on all pairs this is the root of the target's
    share of the pairs, which is what to compare a value with. The squares over disjoint targets sum
    to one at most.
    """
    flat_LX = maps_LPP.reshape(len(maps_LPP), -1)
    flat_CX = targets_CPP.reshape(len(targets_CPP), -1).astype(np.float64)
    norms_LC = np.linalg.norm(flat_LX, axis=1)[:, None] * np.linalg.norm(flat_CX, axis=1)
    with np.errstate(invalid="ignore"):
        return flat_LX @ flat_CX.T / np.where(norms_LC > 0, norms_LC, np.nan)


def permuted(maps_LPP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same maps with the points in another order: no pair keeps its own weight but by chance."""
    order_P = rng.permutation(maps_LPP.shape[-1])
    return maps_LPP[:, order_P][:, :, order_P]


def uniform(num_points: int) -> np.ndarray:
    """A map that looks alike at all other points, (1, P, P)."""
    return 1.0 - np.eye(num_points)[None]


def neighbours(num_points: int) -> np.ndarray:
    """A map that looks at the points before and behind in the sequence alone, (1, P, P)."""
    return np.eye(num_points, k=1)[None] + np.eye(num_points, k=-1)[None]


def beside(
    maps_LPP: np.ndarray, targets_CPP: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Cosines (L, C) of a sequence's own maps, and of maps that know nothing of space.

    These are its own maps with the points permuted, attention alike on all pairs, and attention to
    neighbours in the sequence, which are often near in space too.
    """
    num_layers, num_points = maps_LPP.shape[:2]
    kinds = {OWN: maps_LPP, PERMUTED: permuted(maps_LPP, rng)}
    for kind, map_1PP in ((ALIKE, uniform(num_points)), (NEIGHBOURS, neighbours(num_points))):
        kinds[kind] = np.repeat(map_1PP, num_layers, axis=0)
    return {kind: cosines(of_LPP, targets_CPP) for kind, of_LPP in kinds.items()}


def by_target(
    values_SLC: np.ndarray, names: Sequence[str], num_samples: int, seed: int
) -> dict[str, list[Interval]]:
    """For each of C named targets, the mean over sequences at every layer."""
    return {
        name: [mean_interval(values_S, num_samples, seed) for values_S in values_SLC[..., c].T]
        for c, name in enumerate(names)
    }


def mean_interval(values_S: np.ndarray, num_samples: int, seed: int) -> Interval:
    """Mean over the sequences that have a value, and its 95 % bootstrap interval over them.

    All NaN where none has one, low and high where only one has.
    """
    known_S = values_S[~np.isnan(values_S)]
    if not len(known_S):
        return Interval(np.nan, np.nan, np.nan)
    means, mean = sampled_means(known_S, np.arange(len(known_S)), num_samples, seed)
    low, high = np.percentile(means, TAILS)
    return Interval(float(low), float(high), mean)
