"""Errors of properties against scikit-learn, SciPy and formulas written by hand."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as peer

from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.metrics.classification import (
    ClassificationMetrics,
    average_precision,
    expected_calibration_error,
)
from lit_seqlm.metrics.ranks import area_under_roc, average_ranks, spearman
from lit_seqlm.metrics.regression import RegressionMetrics, mae_change

NAN = math.nan
NUM_ROWS = 97


@dataclass(frozen=True)
class Measure:
    name: str
    unit: str
    chemists_unit: str
    chemists_factor: float = 1.0


ENERGY = Measure("u0", "Ha", "kcal/mol", 627.509)
DIPOLE = Measure("mu", "D", "D")
GAP = Measure("gap", "Ha", "meV", 27211.4)


def split(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of two targets; the second has gaps."""
    generator = np.random.default_rng(seed)
    labels = generator.normal([-400, 3], [40, 1.5], size=(NUM_ROWS, 2))
    predictions = labels + generator.normal(0, [0.5, 0.4], size=labels.shape)
    labels[::6, 1] = NAN
    return predictions, labels


def fill(metric, predictions: np.ndarray, labels: np.ndarray, rows: np.ndarray, size: int = 20):  # type: ignore[no-untyped-def]
    for start in range(0, len(rows), size):
        cut = slice(start, start + size)
        metric.update(*(torch.from_numpy(part[cut]) for part in (predictions, labels, rows)))
    return metric


# -- numbers


def test_regression_errors_are_those_of_scikit_learn() -> None:
    predictions, labels = split()
    values = fill(
        RegressionMetrics([ENERGY, DIPOLE]), predictions, labels, np.arange(NUM_ROWS)
    ).compute()
    for column, name in enumerate(["u0", "mu"]):
        present = ~np.isnan(labels[:, column])
        label, prediction = labels[present, column], predictions[present, column]
        mae = peer.mean_absolute_error(label, prediction)
        assert values[f"mae/{name}"] == pytest.approx(mae, rel=1e-12)
        assert values[f"rmse/{name}"] == pytest.approx(
            peer.root_mean_squared_error(label, prediction), rel=1e-12
        )
        assert values[f"r2/{name}"] == pytest.approx(peer.r2_score(label, prediction), rel=1e-12)
        assert values[f"std_mae/{name}"] == pytest.approx(mae / label.std(), rel=1e-12)
        assert values[f"spearman/{name}"] == pytest.approx(
            stats.spearmanr(label, prediction).statistic, rel=1e-12
        )
    assert values["mae_kcal_mol/u0"] == pytest.approx(627.509 * values["mae/u0"], rel=1e-12)
    assert values["labels"] == 97 + 80
    for measure in ("std_mae", "r2", "spearman"):
        both = (values[f"{measure}/u0"] + values[f"{measure}/mu"]) / 2
        assert values[measure] == pytest.approx(both, rel=1e-12)


def test_errors_in_different_units_are_averaged_under_the_papers_name_alone() -> None:
    predictions, labels = split()

    def names(*targets: Measure) -> dict[str, float]:
        columns = len(targets)
        metric = RegressionMetrics(list(targets))
        return fill(
            metric, predictions[:, :columns], labels[:, :columns], np.arange(NUM_ROWS)
        ).compute()

    mixed, alike, single = names(ENERGY, DIPOLE), names(ENERGY, GAP), names(ENERGY)
    assert "mae" not in mixed
    assert "rmse" not in mixed
    assert mixed["avg_mae_paper"] == pytest.approx((mixed["mae/u0"] + mixed["mae/mu"]) / 2)
    assert alike["mae"] == pytest.approx((alike["mae/u0"] + alike["mae/gap"]) / 2)
    assert "avg_mae_paper" not in alike
    assert single["mae"] == single["mae/u0"]
    unknown = [Measure("a", "", ""), Measure("b", "", "")]
    assert "mae" not in names(*unknown), "units that are not known may differ"
    assert "mae" in names(unknown[0])


def test_the_mixed_mean_of_molformer_xl_is_the_papers() -> None:
    """Per-measure MAEs and test deviations of the published table give its two averages."""
    maes = [0.3327, 0.1447, 0.3362, 0.0038, 0.2522, 0.0029, 0.0027, 0.3616, 17.062, 0.3211, 0.2522,
            0.0003]  # fmt: skip
    deviations = [8.235, 4.0857, 40.644, 0.04745, 40.643, 0.02201, 0.0467, 1.534, 277.37, 40.643, 40.643,
                  0.03334]  # fmt: skip
    labels = np.array([[-1.0], [1.0]]) * deviations
    targets = [Measure(str(index), f"unit {index}", f"unit {index}") for index in range(12)]
    values = fill(RegressionMetrics(targets), labels + maes, labels, np.arange(2)).compute()
    assert values["avg_mae_paper"] == pytest.approx(1.5894, abs=5e-5)
    assert values["std_mae"] == pytest.approx(0.0567, abs=5e-5)


def test_order_batches_and_repeated_rows_change_nothing() -> None:
    predictions, labels = split()
    rows = np.arange(NUM_ROWS)
    targets = [ENERGY, DIPOLE]
    whole = fill(RegressionMetrics(targets), predictions, labels, rows, size=NUM_ROWS)
    mixed = np.random.default_rng(1).permutation(np.r_[rows, rows[:10]])
    other = fill(RegressionMetrics(targets), predictions[mixed], labels[mixed], mixed, size=7)
    assert other.compute() == whole.compute()
    for ours, theirs in zip(other.collected(), (predictions, labels, rows), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_labels_are_not_rounded() -> None:
    """One kcal/mol is 0.0016 of 400 Ha: float32 would show errors of 1e-5."""
    labels = np.full((4, 1), -400.0) + np.arange(4)[:, None]
    metric = fill(RegressionMetrics([ENERGY]), labels + 1e-9, labels, np.arange(4))
    assert metric.compute()["mae/u0"] == pytest.approx(1e-9, rel=1e-3)
    metric.half()
    assert metric.compute()["mae/u0"] == pytest.approx(1e-9, rel=1e-3)


def test_what_is_not_defined_is_left_out() -> None:
    labels = np.array([[1.0, NAN], [1.0, NAN], [1.0, NAN]])
    values = fill(
        RegressionMetrics([ENERGY, DIPOLE]), labels[:, [0, 0]] + 1, labels, np.arange(3)
    ).compute()
    expected = {"mae/u0", "rmse/u0", "mae_kcal_mol/u0", "avg_mae_paper", "labels"}
    assert set(values) == expected


def test_predictions_that_are_no_numbers_are_counted_and_refused() -> None:
    predictions, labels = split()
    predictions[31, 1] = NAN
    predictions[40, 0] = math.inf
    metric = fill(RegressionMetrics([ENERGY, DIPOLE]), predictions, labels, 100 + np.arange(97))
    with pytest.raises(
        DivergedError, match="2 of 194 predictions are not finite, first that of mu in row 131"
    ):
        metric.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_reset_metric_is_empty() -> None:
    metric = fill(RegressionMetrics([ENERGY, DIPOLE]), *split(), np.arange(NUM_ROWS))
    metric.reset()
    assert metric.compute() == {}


def test_change_of_the_mae_has_an_interval_over_molecules() -> None:
    better, labels = split()
    worse = labels + 2 * (better - labels)
    units = np.array([40.0, 1.5])
    change = mae_change(worse, better, labels, units, num_samples=500, seed=0)
    difference = (np.abs(better - labels) - np.abs(worse - labels)) / units
    assert change.mean == pytest.approx(np.nanmean(difference), rel=1e-12)
    assert change.low < change.mean < change.high < 0
    none = mae_change(better, better, labels, units, num_samples=50, seed=0)
    assert none.low == none.high == 0
    # A molecule's labels are drawn together: two copies of a target tell no more than one.
    one = mae_change(*(part[:, :1] for part in (worse, better, labels)), units[:1], 500, 0)
    two = mae_change(*(part[:, [0, 0]] for part in (worse, better, labels)), units[[0, 0]], 500, 0)
    assert (two.low, two.high) == (pytest.approx(one.low), pytest.approx(one.high))


# -- ranks


def test_ranks_are_shared_by_equal_values() -> None:
    values = np.random.default_rng(0).integers(0, 9, 60).astype(float)
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))
    assert average_ranks(np.array([])).size == 0


def test_spearman_with_ties_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 9, 60).astype(float)
    second = first + generator.integers(0, 9, 60)
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert math.isnan(spearman(first, np.ones(60)))


def test_area_under_roc_counts_pairs() -> None:
    generator = np.random.default_rng(0)
    score = generator.integers(0, 9, 40) / 9
    positive = generator.random(40) < score
    pairs = [
        (score[i] > score[j]) + 0.5 * (score[i] == score[j])
        for i in np.flatnonzero(positive)
        for j in np.flatnonzero(~positive)
    ]
    assert area_under_roc(score, positive) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert math.isnan(area_under_roc(score, np.ones(40, bool)))


# -- classes


CLASSES = [Measure(name, "", "") for name in "abc"]


def classes() -> tuple[np.ndarray, np.ndarray]:
    """Three targets: with gaps and ties, plain, and one that is never positive."""
    generator = np.random.default_rng(0)
    probability = generator.random((NUM_ROWS, 3))
    probability[:, 0] = probability[:, 0].round(1)
    label = (generator.random((NUM_ROWS, 3)) < probability).astype(float)
    label[::5, 0], label[:, 2] = NAN, 0
    return probability, label


def test_classification_errors_are_those_of_scikit_learn() -> None:
    probability, label = classes()
    metric = fill(ClassificationMetrics(CLASSES), probability, label, np.arange(NUM_ROWS))
    values = metric.compute()
    for column, name in enumerate(["a", "b"]):
        present = ~np.isnan(label[:, column])
        truth, score = label[present, column], probability[present, column]
        for measure, theirs in (
            ("auroc", peer.roc_auc_score(truth, score)),
            ("average_precision", peer.average_precision_score(truth, score)),
            ("brier", peer.brier_score_loss(truth, score)),
        ):
            assert values[f"{measure}/{name}"] == pytest.approx(theirs, rel=1e-12), measure
    assert metric.one_class == ["c"]
    assert "auroc/c" not in values
    assert values["auroc"] == pytest.approx((values["auroc/a"] + values["auroc/b"]) / 2)
    assert values["brier"] == pytest.approx(
        np.mean([values[f"brier/{name}"] for name in ("a", "b", "c")])
    )


def test_calibration_error_equals_a_loop_over_bins() -> None:
    probability, label = (part[:, 1] for part in classes())
    probability[:3] = 0.0, 1.0, 0.2
    total = 0.0
    for low in range(5):
        upper = 1.1 if low == 4 else (low + 1) / 5
        inside = (probability >= low / 5) & (probability < upper)
        if inside.any():
            gap = probability[inside].mean() - label[inside].mean()
            total += inside.mean() * abs(gap)
    assert expected_calibration_error(probability, label == 1, 5) == pytest.approx(total, rel=1e-9)


def test_calibration_error_is_small_for_honest_probabilities_only() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random(20_000)
    positive = generator.random(20_000) < probability
    assert expected_calibration_error(probability, positive, 15) < 0.02
    assert expected_calibration_error(probability**3, positive, 15) > 0.2


def test_average_precision_of_a_hand_made_ranking() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(score, np.array([True, False, True, False])) == pytest.approx(
        (1 + 2 / 3) / 2
    )


def test_labels_that_are_no_classes_are_refused_by_name() -> None:
    probability, label = classes()
    label[3, 1] = 0.5
    metric = fill(ClassificationMetrics(CLASSES), probability, label, np.arange(NUM_ROWS))
    with pytest.raises(UserError, match=r"b has the label 0\.5: classes are 0 and 1"):
        metric.compute()
