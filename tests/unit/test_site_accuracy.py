"""Shares of right sites against loops over residues and scikit-learn; intervals over proteins."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix, recall_score
from torch import Tensor

from lit_seqlm.data.targets import plain_target
from lit_seqlm.metrics import bootstrap
from lit_seqlm.metrics.regression import RegressionMetrics
from lit_seqlm.metrics.sites import SiteAccuracy

CLASSES = ("H", "E", "C")
LENGTHS = [7, 12, 3, 9, 1, 5]


def batch(rows: list[int], width: int = 14) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Predictions, labels, rows and scopes; what a row holds does not depend on its company."""
    predicted = torch.full((len(rows), width), 2)
    sites = torch.full((len(rows), width), -1)
    resolved = torch.ones(len(rows), width, dtype=torch.bool)
    for place, row in enumerate(rows):
        rng, inner = np.random.default_rng(row), slice(1, 1 + LENGTHS[row])
        truth = rng.integers(3, size=LENGTHS[row])
        said = np.where(rng.random(LENGTHS[row]) < 0.6, truth, rng.integers(3, size=LENGTHS[row]))
        sites[place, inner], predicted[place, inner] = torch.tensor(truth), torch.tensor(said)
        resolved[place, inner] = torch.tensor(rng.random(LENGTHS[row]) < 0.7)
    return predicted, sites, torch.tensor(rows), {"resolved": resolved}


def computed(batches: list[list[int]], width: int = 14) -> SiteAccuracy:
    metric = SiteAccuracy(CLASSES, "q3", ["resolved"])
    for rows in batches:
        metric.update(*batch(rows, width))
    return metric


def pooled(scope: str) -> tuple[list[int], list[int]]:
    """(true, predicted) of all sites in a scope, residue by residue."""
    predicted, sites, _, scopes = batch(list(range(6)))
    found: tuple[list[int], list[int]] = ([], [])
    for row in range(6):
        for place in range(1, 1 + LENGTHS[row]):
            if scope == "all" or scopes[scope][row, place]:
                found[0].append(int(sites[row, place]))
                found[1].append(int(predicted[row, place]))
    return found


BATCHES = [[0, 1, 2], [3], [4, 5]]


def test_shares_are_pooled_over_residues() -> None:
    numbers = computed(BATCHES).compute()
    for scope, suffix in (("all", ""), ("resolved", "_resolved")):
        true, said = pooled(scope)
        right = sum(a == b for a, b in zip(true, said, strict=True))
        assert numbers[f"q3{suffix}"] == right / len(true)
        assert numbers[f"sites{suffix}"] == len(true)
    assert numbers["sites"] == sum(LENGTHS)
    assert numbers["sequences"] == 6


def test_confusion_and_recall_are_those_of_scikit_learn() -> None:
    metric = computed(BATCHES)
    for scope in ("all", "resolved"):
        true, said = pooled(scope)
        np.testing.assert_array_equal(metric.confusion(scope), confusion_matrix(true, said))
        expected = recall_score(true, said, average=None)
        np.testing.assert_allclose(list(metric.recall(scope).values()), expected)
    numbers = metric.compute()
    assert {f"recall/{name}" for name in CLASSES} <= numbers.keys()


def test_batches_order_and_padding_do_not_matter() -> None:
    first = computed(BATCHES).compute()
    assert computed([[5, 0], [1], [4, 3, 2]], width=30).compute() == first


def test_intervals_are_those_of_drawn_proteins() -> None:
    """The definition: draw proteins, pool their residues."""
    metric = computed(BATCHES)
    found = metric.interval("resolved", num_samples=200, seed=3)
    _, counts = metric.collected()
    generator, right_all = np.random.default_rng(3), counts[:, 1]
    right_all = right_all[right_all[:, 1] > 0]
    shares = []
    for _ in range(200):
        chosen = right_all[generator.integers(len(right_all), size=len(right_all))]
        shares.append(chosen[:, 0].sum() / chosen[:, 1].sum())
    np.testing.assert_allclose((found.low, found.high), np.percentile(shares, [2.5, 97.5]))
    numbers = metric.compute()
    assert numbers["q3_low"] <= numbers["q3"] <= numbers["q3_high"]


def test_ratios_of_sums_are_means_of_what_was_summed() -> None:
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    values = rng.normal(size=len(documents))
    means, mean = bootstrap.sampled_means(values, documents, 300, 1)
    sums, lengths = np.bincount(documents, weights=values), np.bincount(documents)
    np.testing.assert_array_equal(bootstrap.sampled_ratios(sums, lengths, 300, 1), means)
    found = bootstrap.ratio_interval(sums, lengths, 300, 1)
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == tuple(np.percentile(means, [2.5, 97.5]))


def test_a_constant_has_an_interval_of_width_zero() -> None:
    metric = SiteAccuracy(CLASSES, "q3")
    sites = torch.tensor([[0, 1, 2, 0]] * 5)
    metric.update(torch.tensor([[0, 1, 2, 1]] * 5), sites, torch.arange(5))
    numbers = metric.compute()
    assert numbers["q3"] == numbers["q3_low"] == numbers["q3_high"] == 0.75


def test_chains_with_a_class_that_nobody_can_predict() -> None:
    """Whatever is said of it is wrong; it is no row of the confusion matrix. -1 has no label at all."""
    metric = SiteAccuracy(CLASSES, "top1")
    metric.update(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 2, -2, -1]), torch.arange(4))
    numbers = metric.compute()
    assert numbers["top1"] == pytest.approx(1 / 3)
    assert (numbers["sites"], numbers["sequences"]) == (3, 3)
    assert metric.confusion().sum() == 2
    assert numbers["recall/H"] == 1
    assert numbers["recall/C"] == 0
    assert "recall/E" not in numbers  # it has no site


def test_recall_of_many_classes_is_no_number() -> None:
    metric = SiteAccuracy([str(fold) for fold in range(1195)], "top1")
    metric.update(torch.tensor([3, 1194]), torch.tensor([3, 7]), torch.arange(2))
    assert not [name for name in metric.compute() if name.startswith("recall")]
    assert metric.recall() == {"3": 1.0, "7": 0.0}


def test_windows_of_a_protein_are_one_protein() -> None:
    metric = SiteAccuracy(CLASSES, "q3")
    predicted, sites = torch.zeros(4, 3, dtype=torch.int64), torch.tensor([[0, 0, 1]] * 4)
    metric.update(predicted, sites, torch.arange(4), None, torch.tensor([0, 0, 0, 1]))
    numbers = metric.compute()
    assert (numbers["sequences"], numbers["sites"]) == (2, 12)
    assert metric.collected()[1][:, 0].tolist() == [[6, 9], [2, 3]]


def test_copies_of_a_sequence_are_drawn_together() -> None:
    """Four copies are no four samples: the interval is that of each sequence once, with all its sites."""
    rng = np.random.default_rng(0)
    sites = torch.from_numpy(rng.integers(3, size=(20, 9)))
    said = torch.where(torch.from_numpy(rng.random((20, 9)) < 0.6), sites, 0)
    once = SiteAccuracy(CLASSES, "q3")
    once.update(said, sites, torch.arange(20))
    same_N = np.tile(np.arange(20), 4)
    numbers = []
    for same in (same_N, None):
        metric = SiteAccuracy(CLASSES, "q3", same_N=same)
        metric.update(said.repeat(4, 1), sites.repeat(4, 1), torch.arange(80))
        numbers.append(metric.compute())
    together, apart = numbers
    expected = once.compute()
    for name in ("q3", "q3_low", "q3_high", "distinct_sequences"):
        assert together[name] == expected[name]
    assert (together["sequences"], together["sites"]) == (80, 720)
    assert together["q3"] == apart["q3"]
    width = [one["q3_high"] - one["q3_low"] for one in numbers]
    assert width[0] == pytest.approx(2 * width[1], rel=0.2)  # as 4 = 2^2
    assert apart["distinct_sequences"] == 80


def test_nothing_scored_has_no_numbers() -> None:
    assert SiteAccuracy(CLASSES, "q3").compute() == {}
    metric = SiteAccuracy(CLASSES, "q3", ["resolved"])
    silent = torch.full((2, 4), -1)
    metric.update(silent.clamp(min=0), silent, torch.arange(2), {"resolved": silent > 0})
    assert metric.compute() == {}
    one = SiteAccuracy(CLASSES, "q3", ["resolved"])
    sites = torch.tensor([[0, 1]])
    one.update(sites, sites, torch.arange(1), {"resolved": sites < 0})
    numbers = one.compute()
    assert numbers["q3"] == 1
    assert not {"q3_low", "q3_resolved", "sites_resolved"} & numbers.keys()
    assert all(math.isfinite(value) for value in numbers.values())


def test_a_row_given_twice_counts_once() -> None:
    again = computed([*BATCHES, [3]]).compute()
    assert again["q3"] == computed(BATCHES).compute()["q3"]
    assert again["sites"] == sum(LENGTHS)


def test_the_spearman_of_a_whole_split_is_scipys() -> None:
    """Over all rows at once, never the mean over batches; ties share their ranks."""
    rng = np.random.default_rng(0)
    labels = rng.normal(size=90).round(1)
    said = labels + rng.normal(size=90)
    metric = RegressionMetrics([plain_target("log_fluorescence", "y", "")])
    for rows in np.array_split(rng.permutation(90), 4):
        values = [torch.from_numpy(of[rows])[:, None] for of in (said, labels)]
        metric.update(*values, torch.from_numpy(rows))
    found = metric.compute()["spearman/log_fluorescence"]
    assert found == pytest.approx(stats.spearmanr(labels, said).statistic, abs=1e-12)
