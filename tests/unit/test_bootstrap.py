"""Intervals against a loop that draws document by document, and how often they hold the truth."""

import math

import numpy as np
import pytest

from lit_seqlm.metrics import bootstrap
from lit_seqlm.metrics.bootstrap import blocks, documents, interval, paired_bootstrap


def stream(num_documents: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' nll and the documents; a document's tokens share how hard they are and which model they suit."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 30, num_documents)
    document_of = np.repeat(np.arange(num_documents), lengths)
    hard = generator.normal(5, 1, num_documents)[document_of]
    suits = generator.normal(-0.1, 0.1, num_documents)[document_of]
    first = hard + generator.normal(0, 1, len(hard))
    return first, first + suits + generator.normal(0, 0.1, len(hard)), document_of


def loop(first, second, document_of, num_samples, seed):
    """The definition: draw documents, join their tokens, take two perplexities."""
    generator = np.random.default_rng(seed)
    tokens = [np.flatnonzero(document_of == document) for document in np.unique(document_of)]
    changes, perplexities = [], []
    for _ in range(num_samples):
        joined = np.concatenate(
            [tokens[d] for d in generator.integers(len(tokens), size=len(tokens))]
        )
        before, after = np.exp(first[joined].mean()), np.exp(second[joined].mean())
        changes.append(100 * (after / before - 1))
        perplexities.append(after)
    return np.percentile(changes, [2.5, 97.5]), np.percentile(perplexities, [2.5, 97.5])


@pytest.mark.parametrize("batch_elements", [1, 100, 2**22])
def test_equals_a_naive_loop_with_the_same_draws(monkeypatch, batch_elements):
    monkeypatch.setattr(bootstrap, "BATCH_ELEMENTS", batch_elements)
    first, second, document_of = stream(23, seed=1)
    changes, perplexities = loop(first, second, document_of, 200, seed=5)
    found = paired_bootstrap(first, second, document_of, 200, seed=5)
    np.testing.assert_allclose([found.low, found.high], changes, rtol=1e-10)
    assert found.mean == pytest.approx(100 * (np.exp(second.mean() - first.mean()) - 1))
    found = interval(second, document_of, 200, seed=5)
    np.testing.assert_allclose([found.low, found.high], perplexities, rtol=1e-10)
    assert found.mean == pytest.approx(np.exp(second.mean()))


def test_the_interval_holds_the_truth_about_95_times_of_100():
    """Drawing tokens as if they were independent would hold it far less often."""
    # Long streams of the same kind: the change that a reader of infinitely many documents sees.
    truth = np.mean([np.subtract(*stream(4000, seed)[1::-1]).mean() for seed in range(20)])
    truth = 100 * (math.exp(truth) - 1)
    by_document, by_token = 0, 0
    for seed in range(300):
        first, second, document_of = stream(60, seed=1000 + seed)
        found = paired_bootstrap(first, second, document_of, 300, seed)
        by_document += found.low <= truth <= found.high
        found = paired_bootstrap(first, second, np.arange(len(first)), 100, seed)
        by_token += found.low <= truth <= found.high
    assert 0.89 <= by_document / 300 <= 0.98
    assert by_token / 300 < 0.75


def test_pairing_narrows_the_interval():
    first, second, document_of = stream(60, seed=3)
    paired = paired_bootstrap(first, second, document_of, 500, seed=0)
    alone = interval(second, document_of, 500, seed=0)
    assert paired.high < 0
    assert (paired.high - paired.low) / 100 < (alone.high - alone.low) / alone.mean / 3


def test_equal_models_do_not_differ():
    first, _, document_of = stream(20, seed=0)
    found = paired_bootstrap(first, first, document_of, 50, seed=0)
    assert (found.low, found.high, found.mean) == (0, 0, 0)


def test_same_seed_same_interval():
    first, _, document_of = stream(20, seed=0)
    assert interval(first, document_of, 50, seed=1) == interval(first, document_of, 50, seed=1)
    assert interval(first, document_of, 50, seed=1) != interval(first, document_of, 50, seed=2)


def test_documents_from_their_starts_skip_empty_ones():
    np.testing.assert_array_equal(documents(np.array([0, 2, 2, 5]), 7), [0, 0, 2, 2, 2, 3, 3])
    np.testing.assert_array_equal(documents(np.array([0]), 3), [0, 0, 0])
    np.testing.assert_array_equal(blocks(7, 3), [0, 0, 0, 1, 1, 1, 2])


def test_empty_documents_and_masked_tokens_are_not_drawn():
    """Numbers with gaps are what a mask (known words only) or an empty document leaves."""
    first, second, document_of = stream(20, seed=4)
    expected = paired_bootstrap(first, second, document_of, 80, seed=0)
    assert paired_bootstrap(first, second, 3 * document_of + 2, 80, seed=0) == expected


@pytest.mark.parametrize("num_tokens", [1, 5])
def test_one_document_has_no_spread(num_tokens):
    found = interval(np.full(num_tokens, 2.0), np.zeros(num_tokens, dtype=int), 10, seed=0)
    assert found.mean == pytest.approx(math.exp(2))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_target_without_mass_gives_an_infinite_perplexity_and_no_interval():
    first, second, document_of = stream(20, seed=0)
    second[7] = np.inf
    found = interval(second, document_of, 10, seed=0)
    assert (found.mean, math.isnan(found.low)) == (math.inf, True)
    assert paired_bootstrap(first, second, document_of, 10, seed=0).mean == math.inf
    assert paired_bootstrap(second, first, document_of, 10, seed=0).mean == -100
    assert math.isnan(paired_bootstrap(second, second, document_of, 10, seed=0).mean)
