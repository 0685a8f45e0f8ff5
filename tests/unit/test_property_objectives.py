"""Losses on labels against loops, densities and their own promises."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lit_seqlm.errors import UserError
from lit_seqlm.head.prediction import (
    EvidentialPrediction,
    GaussianPrediction,
    Prediction,
    QuantilePrediction,
)
from lit_seqlm.objective.classification import Classification
from lit_seqlm.objective.regression import Regression

NAN = math.nan


def labels_and_mean(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    labels[0, 1] = labels[2] = labels[5, 0] = NAN
    return labels, torch.randn(6, 3, generator=generator, requires_grad=True)


def regression(loss: str, weights: list[float] | None = None) -> Regression:
    return Regression(loss, huber_delta=0.7, evidence_weight=0.3, task_weights=weights)


def loss_by_hand(name: str, error: float) -> float:
    if name == "l1":
        return abs(error)
    if name == "mse":
        return error**2
    return error**2 / 2 if abs(error) < 0.7 else 0.7 * (abs(error) - 0.35)


@pytest.mark.parametrize("name", ["l1", "mse", "huber"])
def test_the_loss_is_the_mean_over_labels_that_are_there(name: str) -> None:
    labels, mean = labels_and_mean()
    loss = regression(name)(Prediction(mean), labels)
    single, targets = [], []
    for row in range(6):
        for target in range(3):
            if not math.isnan(labels[row, target]):
                error = float(mean.detach().double()[row, target] - labels[row, target])
                single.append(loss_by_hand(name, error))
                targets.append(target)
    assert loss.count == len(single) == 13
    assert loss.sum.dtype == torch.float64
    assert float(loss.mean.detach()) == pytest.approx(np.mean(single), rel=1e-12)
    np.testing.assert_allclose(loss.clean_nll_N.numpy(), single, rtol=1e-12)
    assert not loss.clean_nll_N.requires_grad
    assert loss.targets_N.tolist() == targets


@pytest.mark.parametrize("objective", [regression("l1"), Classification(None)])
def test_a_missing_label_has_no_gradient(objective: Regression | Classification) -> None:
    labels, mean = labels_and_mean()
    if isinstance(objective, Classification):
        labels = (labels > 0).double().where(~labels.isnan(), NAN)
    objective(Prediction(mean), labels).mean.backward()
    assert torch.equal(mean.grad == 0, labels.isnan())
    assert mean.grad.isfinite().all()


def test_a_batch_without_labels_adds_nothing() -> None:
    labels, mean = labels_and_mean()
    loss = regression("l1")(Prediction(mean), labels * NAN)
    loss.sum.backward()
    assert loss.count == 0
    assert float(loss.sum.detach()) == 0
    assert (mean.grad == 0).all()


def test_micro_batches_sum_to_the_batch() -> None:
    labels, mean = labels_and_mean()
    objective = regression("l1", [1.0, 0.0, 2.5])
    whole = objective(Prediction(mean), labels)
    parts = [objective(Prediction(mean[i : i + 2]), labels[i : i + 2]) for i in (0, 2, 4)]
    assert float(sum(part.sum.detach() for part in parts)) == pytest.approx(
        float(whole.sum.detach()), rel=1e-14
    )
    assert sum(part.count for part in parts) == whole.count


def test_task_weights_multiply_their_targets_only() -> None:
    labels, mean = labels_and_mean()
    plain = regression("mse")(Prediction(mean), labels)
    weighted = regression("mse", [1.0, 0.0, 2.5])(Prediction(mean), labels)
    factor = torch.tensor([1.0, 0.0, 2.5], dtype=torch.float64)[plain.targets_N]
    assert float(weighted.sum.detach()) == pytest.approx(float((plain.clean_nll_N * factor).sum()))
    assert torch.equal(weighted.clean_nll_N, plain.clean_nll_N)
    with pytest.raises(UserError, match="2 numbers for 3 targets"):
        regression("mse", [1.0, 2.0])(Prediction(mean), labels)
    for bad in ([-1.0, 2.0, 1.0], [0.0, 0.0, 0.0], []):
        with pytest.raises(UserError, match="task_weights"):
            regression("mse", bad)


def test_gaussian_is_the_density_of_a_normal_distribution() -> None:
    labels, mean = labels_and_mean()
    variance = torch.rand(6, 3) + 0.1
    loss = regression("gaussian")(GaussianPrediction(mean, variance), labels)
    present = ~labels.isnan().numpy()
    density = stats.norm.logpdf(
        labels.numpy(), mean.detach().double().numpy(), variance.double().sqrt().numpy()
    )
    assert float(loss.sum.detach()) == pytest.approx(-density[present].sum(), rel=1e-12)


def test_evidential_is_the_density_of_a_student_distribution() -> None:
    labels, mean = labels_and_mean()
    nu, alpha, beta = torch.rand(6, 3) + 0.1, torch.rand(6, 3) + 1.1, torch.rand(6, 3) + 0.2
    loss = regression("evidential")(EvidentialPrediction(mean, nu, alpha, beta), labels)
    m, n, a, b = (part.detach().double().numpy() for part in (mean, nu, alpha, beta))
    density = stats.t.logpdf(labels.numpy(), df=2 * a, loc=m, scale=np.sqrt(b * (1 + n) / (n * a)))
    expected = -density + 0.3 * np.abs(labels.numpy() - m) * (2 * n + a)
    assert float(loss.sum.detach()) == pytest.approx(np.nansum(expected), rel=1e-10)


def test_the_best_constant_for_pinball_loss_is_the_quantile() -> None:
    levels = [0.1, 0.5, 0.8]
    labels = torch.from_numpy(np.random.default_rng(0).exponential(size=(501, 1)))
    guesses = torch.linspace(0, 4, 801, dtype=torch.float64)
    objective = regression("quantile")
    for place, level in enumerate(levels):
        losses = []
        for guess in guesses:
            quantiles = torch.zeros(501, 1, 3, dtype=torch.float64)
            quantiles[..., place] = guess
            prediction = QuantilePrediction(quantiles[..., 1], quantiles, levels)
            losses.append(float(objective(prediction, labels).mean))
        best = float(guesses[int(np.argmin(losses))])
        assert best == pytest.approx(np.quantile(labels.numpy(), level), abs=0.02)


@pytest.mark.parametrize("name", ["gaussian", "quantile", "evidential"])
def test_a_loss_names_the_head_that_it_needs(name: str) -> None:
    labels, mean = labels_and_mean()
    with pytest.raises(UserError, match=f"Say head={name}"):
        regression(name)(Prediction(mean), labels)


def test_unknown_losses_and_odd_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="Did you mean huber"):
        regression("hubber")
    with pytest.raises(UserError, match=r"objective\.huber_delta=0"):
        Regression("huber", 0.0, 0.2, None)
    with pytest.raises(UserError, match=r"objective\.evidence_weight=-1"):
        Regression("evidential", 1.0, -1.0, None)


def test_classification_is_the_cross_entropy_of_the_probability() -> None:
    labels, mean = labels_and_mean()
    classes = (labels > 0).double().where(~labels.isnan(), NAN)
    loss = Classification(None)(Prediction(mean), classes)
    probability = 1 / (1 + np.exp(-mean.detach().double().numpy()))
    single = np.where(classes == 1, -np.log(probability), -np.log(1 - probability))
    assert loss.count == 13
    assert float(loss.sum.detach()) == pytest.approx(
        single[~np.isnan(classes.numpy())].sum(), rel=1e-12
    )


def test_classification_is_finite_where_a_probability_rounds_to_one() -> None:
    mean = torch.tensor([[200.0], [-300.0]], requires_grad=True)
    loss = Classification(None)(Prediction(mean), torch.tensor([[0.0], [1.0]]))
    loss.sum.backward()
    assert float(loss.sum.detach()) == 500
    assert mean.grad.tolist() == [[1.0], [-1.0]]


@pytest.mark.parametrize("name", ["l1", "mse", "huber"])
def test_an_uncertainty_is_not_left_untrained(name: str) -> None:
    labels, mean = labels_and_mean()
    with pytest.raises(UserError, match=rf"{name} would not train.*Say objective\.loss=gaussian"):
        regression(name)(GaussianPrediction(mean, torch.ones(6, 3)), labels)
