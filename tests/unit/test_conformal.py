"""Conformal intervals keep their promise; uncertainties are scored as defined."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from lit_seqlm.data.targets import plain_target
from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.metrics.conformal import Band, SplitConformal, conformal_quantile
from lit_seqlm.metrics.uncertainty import (
    UncertaintyMetrics,
    calibration_error,
    ensemble,
    gaussian_nll,
    miscalibration_area,
    sigma_factor,
    uncertainty_errors,
)

NAN = math.nan


def rows(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prediction, sigma, label), heavy tails and noise that differs from row to row."""
    generator = np.random.default_rng(seed)
    sigma = generator.uniform(0.1, 3, (num_rows, 2))
    prediction = generator.normal(size=(num_rows, 2))
    return prediction, sigma, prediction + sigma * generator.standard_t(3, size=(num_rows, 2))


def band(kind: str, prediction: np.ndarray, sigma: np.ndarray) -> Band:
    if kind == "around":
        return Band.around(prediction)
    return Band.scaled(prediction, sigma)


def coverage(low: np.ndarray, high: np.ndarray, label: np.ndarray) -> np.ndarray:
    return ((low <= label) & (label <= high)).mean(0)


# -- the quantile


@pytest.mark.parametrize("miscoverage", [0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("num_scores", [1, 9, 10, 19, 20, 99, 100, 199])
def test_the_quantile_is_the_smallest_that_keeps_the_promise(
    num_scores: int, miscoverage: float
) -> None:
    """Of n + 1 exchangeable scores the last is among the k smallest with probability k / (n + 1)."""
    scores = np.random.default_rng(0).permutation(num_scores).astype(float)
    enough = [
        k for k in range(1, num_scores + 1) if k / (num_scores + 1) >= 1 - miscoverage - 1e-12
    ]
    expected = enough[0] - 1 if enough else math.inf
    assert conformal_quantile(scores, miscoverage) == expected


@pytest.mark.parametrize("kind", ["around", "scaled"])
def test_coverage_over_many_draws_is_the_closed_form(kind: str) -> None:
    """Exactly ceil((n + 1) 0.9) / (n + 1) on average, for continuous scores: 18 / 19 of n = 18 here."""
    num_draws, num_calibration = 4000, 18
    inside = []
    for draw in range(num_draws):
        prediction, sigma, label = rows(num_calibration + 1, draw)
        whole = band(kind, prediction, sigma)
        first, last = (
            Band(whole.prediction_NK[cut], whole.spread_NK[cut])
            for cut in (slice(None, -1), slice(-1, None))
        )
        fitted = SplitConformal.fit(first, label[:-1], 0.1)
        inside.append(coverage(*fitted.interval(last), label[-1:]).mean())
    error = math.sqrt(18 / 19 / 19 / (2 * num_draws))
    assert np.mean(inside) == pytest.approx(18 / 19, abs=4 * error)


def test_a_radius_is_that_of_a_sorted_list() -> None:
    prediction, sigma, label = rows(99, 0)
    label[5, 0] = label[7, 0] = NAN
    fitted = SplitConformal.fit(Band.scaled(prediction, sigma), label, 0.1)
    for column, rank in ((0, math.ceil(98 * 0.9)), (1, 90)):
        scores = np.abs(label[:, column] - prediction[:, column]) / sigma[:, column]
        assert fitted.radius_K[column] == np.sort(scores[~np.isnan(scores)])[rank - 1]
    assert fitted.num_labels_K.tolist() == [97, 99]
    low, high = fitted.interval(Band.scaled(prediction, sigma))
    np.testing.assert_allclose((high - low) / 2, fitted.radius_K * sigma)
    np.testing.assert_allclose((high + low) / 2, prediction)


def test_too_few_labels_promise_nothing() -> None:
    prediction, _, label = rows(8, 0)
    fitted = SplitConformal.fit(Band.around(prediction), label, 0.1)
    assert np.isinf(fitted.radius_K).all()
    low, high = fitted.interval(Band.around(prediction))
    assert (coverage(low, high, label) == 1).all()
    said = json.loads(json.dumps(fitted.state_dict(), allow_nan=False))
    assert said == {"radius": [None, None], "num_labels": [8, 8], "miscoverage": 0.1}


def test_odd_inputs_are_refused() -> None:
    prediction, sigma, label = rows(20, 0)
    with pytest.raises(UserError, match="miscoverage=10"):
        SplitConformal.fit(Band.around(prediction), label, 10)
    with pytest.raises(UserError, match="every sigma above 0"):
        Band.scaled(prediction, 0 * sigma)
    with pytest.raises(UserError, match="above 0 in every row"):
        uncertainty_errors(prediction[:, 0], 0 * sigma[:, 0], label[:, 0])


# -- uncertainty


def test_an_ensemble_is_a_mixture() -> None:
    generator = np.random.default_rng(0)
    means, variances = generator.normal(size=(5, 3, 2)), generator.random((5, 3, 2)) + 0.1
    together = ensemble(means, variances)
    draws = generator.normal(means, np.sqrt(variances), size=(60_000, 5, 3, 2)).reshape(-1, 3, 2)
    np.testing.assert_allclose(together.mean_NK, draws.mean(0), atol=0.02)
    np.testing.assert_allclose(together.sigma, draws.std(0), rtol=0.01)
    alone = ensemble(means)
    np.testing.assert_allclose(alone.sigma, means.std(0))
    assert not alone.noise_NK.any()


def test_nll_is_that_of_scipy() -> None:
    prediction, sigma, label = (part[:, 0] for part in rows(50, 0))
    expected = -stats.norm.logpdf(label, prediction, sigma).mean()
    assert gaussian_nll(prediction - label, sigma) == pytest.approx(expected, rel=1e-12)


def test_calibration_error_equals_a_loop() -> None:
    prediction, sigma, label = (part[:, 0] for part in rows(100, 0))
    order, gaps = np.argsort(sigma), []
    for group in range(4):
        chosen = order[25 * group : 25 * group + 25]
        expected = math.sqrt(np.mean(sigma[chosen] ** 2))
        found = math.sqrt(np.mean((prediction - label)[chosen] ** 2))
        gaps.append(abs(expected - found) / expected)
    assert calibration_error(prediction - label, sigma, 4) == pytest.approx(np.mean(gaps))
    assert math.isnan(calibration_error(np.ones(7), np.ones(7), 4))


def test_miscalibration_area_equals_a_fine_grid() -> None:
    prediction, sigma, label = (part[:, 0] for part in rows(40, 0))
    error = prediction - label
    p = (np.arange(100_000) + 0.5) / 100_000
    reach = stats.norm.ppf(0.5 + p / 2)
    share = np.searchsorted(np.sort(np.abs(error) / sigma), reach, side="right") / 40
    expected = np.abs(share - p).mean()
    assert miscalibration_area(error, sigma) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("factor", "area"), [(1.0, 0.0), (1e9, 0.5), (1e-9, 0.5)])
def test_miscalibration_area_knows_its_ends(factor: float, area: float) -> None:
    generator = np.random.default_rng(0)
    sigma = generator.uniform(0.1, 3, 20_000)
    error = sigma * generator.normal(size=20_000)
    assert miscalibration_area(error, factor * sigma) == pytest.approx(area, abs=0.01)


def test_the_sigma_factor_has_the_highest_likelihood() -> None:
    prediction, sigma, label = (part[:, 0] for part in rows(100, 0))
    error = prediction - label
    best = sigma_factor(error, sigma)
    at_best = gaussian_nll(error, best * sigma)
    assert all(gaussian_nll(error, best * sigma * step) > at_best for step in (0.98, 1.02))


def test_sigmas_stay_with_their_rows_and_a_row_counts_once() -> None:
    prediction, sigma, label = rows(60, 0)
    order = np.random.default_rng(1).permutation(60)
    twice = np.append(order, order[:7])
    targets = [plain_target(name, name, "eV") for name in ("a", "b")]
    metric = UncertaintyMetrics(targets)
    for cut in np.array_split(twice, 4):
        metric.update(*(torch.from_numpy(part[cut]) for part in (prediction, label)),
                      torch.from_numpy(cut), torch.from_numpy(sigma[cut]))  # fmt: skip
    values = metric.compute()
    for column, name in enumerate(("a", "b")):
        wanted = uncertainty_errors(prediction[:, column], sigma[:, column], label[:, column])
        assert {key: values[f"{key}/{name}"] for key in wanted} == pytest.approx(wanted)
    assert values["ence"] == pytest.approx((values["ence/a"] + values["ence/b"]) / 2)


def test_a_sigma_that_is_no_number_is_a_divergence() -> None:
    metric = UncertaintyMetrics([plain_target("a", "a", "eV")])
    one = torch.ones(1, 1)
    metric.update(one, one, torch.zeros(1, dtype=torch.int64), one * NAN)
    with pytest.raises(DivergedError, match="not finite"):
        metric.compute()


def test_uncertainty_errors_leave_out_missing_labels_and_what_is_undefined() -> None:
    prediction, sigma, label = (part[:, 0] for part in rows(60, 0))
    label[::3] = NAN
    present = ~np.isnan(label)
    ours = uncertainty_errors(prediction, sigma, label)
    assert ours == uncertainty_errors(prediction[present], sigma[present], label[present])
    assert ours["error_spearman"] == pytest.approx(
        stats.spearmanr(np.abs(prediction - label)[present], sigma[present]).statistic
    )
    few = uncertainty_errors(prediction[:5], np.ones(5), prediction[:5] + np.arange(5))
    assert set(few) == {"sigma_nll", "miscalibration_area", "sigma", "sigma_factor"}
    assert uncertainty_errors(prediction, sigma, label * NAN) == {}
