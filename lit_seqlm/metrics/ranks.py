"""Ranks, and what is computed from them."""

# N = values

import math

import numpy as np


def average_ranks(values_N: np.ndarray) -> np.ndarray:
    """1 for the smallest value to N for the largest; equal values share the mean of their ranks."""
    _, group_N, size_G = np.unique(values_N, return_inverse=True, return_counts=True)
    last_G = np.cumsum(size_G)
    return (last_G - (size_G - 1) / 2)[group_N]


def spearman(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Pearson correlation of the ranks; NaN where either side has but one value."""
    first, second = (average_ranks(side) - (len(side) + 1) / 2 for side in (first_N, second_N))
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale else math.nan


class CountedSpearman:
    """`spearman` of rows that are drawn some number of times each; values are sorted but once."""

    def __init__(self, first_N: np.ndarray, second_N: np.ndarray):
        self.groups = [np.unique(side, return_inverse=True)[1] for side in (first_N, second_N)]

    def __call__(self, counts_N: np.ndarray) -> float:
        """Of each row as often as `counts_N` says."""
        first, second = (self._centred_ranks(group_N, counts_N) for group_N in self.groups)
        drawn = counts_N * first
        scale = math.sqrt(float(drawn @ first) * float((counts_N * second) @ second))
        return float(drawn @ second) / scale if scale else math.nan

    @staticmethod
    def _centred_ranks(group_N: np.ndarray, counts_N: np.ndarray) -> np.ndarray:
        size_G = np.bincount(group_N, weights=counts_N)
        last_G = np.cumsum(size_G)
        return (last_G - size_G / 2 - last_G[-1] / 2)[group_N]


def area_under_roc(score_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Probability that a positive's score is above a negative's, ties counting half.

    U / (P Q) of Mann and Whitney 1947, for P positives and Q negatives; NaN where either is zero.
    """
    num_positive = int(positive_N.sum())
    num_pairs = num_positive * (len(score_N) - num_positive)
    if not num_pairs:
        return math.nan
    rank_sum = float(average_ranks(score_N)[positive_N].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / num_pairs
