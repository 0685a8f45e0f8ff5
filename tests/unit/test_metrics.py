"""Perplexity: the exp of one mean, in float64, whatever the batches."""

import math

import numpy as np
import pytest
import torch

from lit_seqlm.metrics.perplexity import Perplexity


def test_it_is_the_exp_of_the_mean_over_all_batches() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.gamma(2.0, 3.0, size=size) for size in (1, 7, 100, 3)]
    metric = Perplexity()
    for nll in batches:
        metric.update(torch.tensor(nll), torch.zeros(len(nll), dtype=torch.long))
    expected = math.exp(np.concatenate(batches).mean())
    assert (
        metric.compute()["ppl"] == expected or abs(metric.compute()["ppl"] / expected - 1) < 1e-14
    )
    mean_of_exps = np.mean([math.exp(nll.mean()) for nll in batches])
    assert abs(metric.compute()["ppl"] / mean_of_exps - 1) > 1e-3


def test_small_terms_are_not_lost_in_long_sums() -> None:
    metric = Perplexity()
    metric.update(torch.full((1,), 1e8), torch.zeros(1, dtype=torch.long))
    for _ in range(1000):
        metric.update(torch.full((1,), 0.5), torch.zeros(1, dtype=torch.long))
    assert float(metric.nll_sum) == 1e8 + 500.0


def test_the_unknown_word_can_be_left_out() -> None:
    metric = Perplexity(unknown_id=2)
    metric.update(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0, 2, 1]))
    values = metric.compute()
    assert values["ppl_known"] == math.exp(2.0)
    assert values["ppl"] == math.exp(3.0)
    assert values["tokens"] == 3


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_scored_gives_no_number() -> None:
    assert Perplexity().compute() == {}


def test_a_hopeless_model_has_infinite_perplexity() -> None:
    metric = Perplexity()
    metric.update(torch.tensor([1000.0]), torch.tensor([0]))
    assert metric.compute()["ppl"] == math.inf
