"""How far a perplexity, or the difference of two, would move with other documents.

Tokens of one document are alike, so documents are drawn, not tokens (Efron and Tibshirani 1993,
percentile interval; paired as in Koehn 2004). A stream without documents is cut into blocks of a
fixed length, which should be longer than what its tokens share.
"""

# N = scored tokens, D = documents with at least one token, R = samples of one batch

from dataclasses import dataclass

import numpy as np

TAILS = (2.5, 97.5)  # percent
BATCH_ELEMENTS = 2**22  # drawn documents held at once


@dataclass(frozen=True)
class Interval:
    """95 % of the samples lie within low and high; `mean` is the value on the text as it is.

    low and high are NaN where they cannot be known: fewer than two documents, or an infinite nll.
    """

    low: float
    high: float
    mean: float


def blocks(num_tokens: int, size: int) -> np.ndarray:
    """Document number of each token (N,) where there are no documents: blocks of `size` tokens."""
    return np.arange(num_tokens) // size


def documents(starts: np.ndarray, num_tokens: int) -> np.ndarray:
    """Document number of each token (N,), from the positions of the documents' first tokens."""
    return np.searchsorted(np.asarray(starts), np.arange(num_tokens), side="right") - 1


def interval(nll_N: np.ndarray, document_of_N: np.ndarray, num_samples: int, seed: int) -> Interval:
    """Of one perplexity."""
    means, mean = sampled_means(nll_N, document_of_N, num_samples, seed)
    with np.errstate(over="ignore"):
        low, high = np.percentile(np.exp(means), TAILS)
        return Interval(float(low), float(high), float(np.exp(mean)))


def paired_bootstrap(
    nll_a_N: np.ndarray,
    nll_b_N: np.ndarray,
    document_of_N: np.ndarray,
    num_samples: int,
    seed: int,
) -> Interval:
    """Of the change from a to b in percent of the perplexity, 100 (ppl_b / ppl_a - 1).

    Both are measured on the same drawn documents: what makes a document hard for both cancels. The
    ratio is the exponential of the mean difference, so the differences alone are drawn. Negative
    is better; a change whose interval holds 0 may be chance.
    """
    assert len(nll_a_N) == len(nll_b_N)
    with np.errstate(invalid="ignore"):
        difference_N = np.asarray(nll_b_N, dtype=np.float64) - nll_a_N
    means, mean = sampled_means(difference_N, document_of_N, num_samples, seed)
    with np.errstate(over="ignore"):
        low, high = np.percentile(100 * np.expm1(means), TAILS)
        return Interval(float(low), float(high), float(100 * np.expm1(mean)))


def sampled_means(
    values_N: np.ndarray, document_of_N: np.ndarray, num_samples: int, seed: int
) -> tuple[np.ndarray, float]:
    """(mean over tokens of each sample of D documents drawn with replacement, mean of the text)."""
    assert len(values_N) == len(document_of_N) > 0
    mean = float(np.mean(values_N, dtype=np.float64))
    lengths = np.bincount(document_of_N)
    present = lengths > 0
    length_D = lengths[present]
    sum_D = np.bincount(document_of_N, weights=values_N)[present]
    if not np.isfinite(mean):
        return np.full(num_samples, np.nan), mean
    return sampled_ratios(sum_D, length_D, num_samples, seed), mean


def sampled_ratios(
    sum_D: np.ndarray, length_D: np.ndarray, num_samples: int, seed: int
) -> np.ndarray:
    """Sum over length of each sample of D documents; NaN with fewer than two. No length may be 0."""
    num_documents = len(length_D)
    if num_documents < 2:
        return np.full(num_samples, np.nan)
    generator = np.random.default_rng(seed)
    batch = max(1, BATCH_ELEMENTS // num_documents)
    ratios = []
    for start in range(0, num_samples, batch):
        shape = (min(batch, num_samples - start), num_documents)
        drawn_RD = generator.integers(num_documents, size=shape)
        ratios.append(sum_D[drawn_RD].sum(1) / length_D[drawn_RD].sum(1))
    return np.concatenate(ratios)


def of_equal(values_N: np.ndarray, same_N: np.ndarray) -> np.ndarray:
    """Sums (D, ...) over documents that have the same number: copies are drawn together, as they are no two samples."""
    place_N = np.unique(same_N, return_inverse=True)[1]
    sums = np.zeros((place_N.max(initial=-1) + 1, *values_N.shape[1:]), values_N.dtype)
    np.add.at(sums, place_N, values_N)
    return sums


def ratio_interval(
    sum_D: np.ndarray, length_D: np.ndarray, num_samples: int, seed: int
) -> Interval:
    """Of a share that is pooled over documents, such as right residues over residues of proteins."""
    ratios = sampled_ratios(sum_D, length_D, num_samples, seed)
    low, high = np.percentile(ratios, TAILS)
    return Interval(float(low), float(high), float(sum_D.sum() / length_D.sum()))
