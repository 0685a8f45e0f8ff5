"""Pooling, heads, units and the property model against formulas written by hand."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lit_seqlm.config import build
from lit_seqlm.errors import UserError
from lit_seqlm.head.evidential import EvidentialHead
from lit_seqlm.head.gaussian import GaussianHead
from lit_seqlm.head.molformer import MolformerHead
from lit_seqlm.head.quantile import QuantileHead
from lit_seqlm.model.layers.pooling import Pooling
from lit_seqlm.model.layers.target_scale import ProbabilityScale, TargetScale
from lit_seqlm.model.property import PropertyModel
from lit_seqlm.objective.regression import Regression

HEADS = sorted((Path(__file__).parents[2] / "conf" / "head").glob("*.yaml"))
NAN = math.nan


def heads() -> list[Any]:
    """Files of the group that build a head."""
    nodes = [(path.stem, OmegaConf.load(path)) for path in HEADS]
    return [pytest.param(node, id=name) for name, node in nodes if "pooling" in node]


class Trunk(nn.Module):
    """Mixes each token with the mean of the valid ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        hidden_BTD = self.embedding(tokens_BT)
        return hidden_BTD + Pooling("mean")(hidden_BTD, valid_BT)[:, None]


def lengths_mask(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


# -- pooling


@pytest.mark.parametrize("kind", ["mean", "mean_inner", "first"])
def test_pooling_equals_a_loop(kind: str) -> None:
    hidden, lengths = torch.randn(4, 6, 3, dtype=torch.float64), [6, 4, 3, 2]
    pooled = Pooling(kind)(hidden, lengths_mask(lengths, 6))
    kept = {"mean": slice(0, None), "mean_inner": slice(1, -1), "first": slice(0, 1)}[kind]
    for row, length in enumerate(lengths):
        tokens = hidden[row, :length].numpy()[kept]
        expected = tokens.sum(0) / max(len(tokens), 1)  # two tokens have nothing between them
        np.testing.assert_allclose(pooled[row].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["mean", "mean_inner", "first"])
def test_pooling_without_padding_needs_no_mask(kind: str) -> None:
    hidden = torch.randn(3, 5, 4)
    pooling = Pooling(kind)
    torch.testing.assert_close(pooling(hidden), pooling(hidden, torch.ones(3, 5, dtype=torch.bool)))


def test_pooling_sums_half_precision_in_full() -> None:
    hidden = torch.full((1, 1000, 2), 1.0, dtype=torch.bfloat16)
    hidden[0, 0] = 256.0  # from 256 on, bfloat16 cannot count by ones
    valid = torch.ones(1, 1000, dtype=torch.bool)
    for mask in (None, valid):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pooled = Pooling("mean")(hidden, mask)
        assert pooled.dtype == torch.float32
        torch.testing.assert_close(pooled, torch.full((1, 2), 1.255), rtol=1e-5, atol=0)


def test_pooling_names_its_kinds() -> None:
    with pytest.raises(UserError, match="choose one of mean, mean_inner, first"):
        Pooling("max")


# -- heads


def test_molformer_head_equals_its_formula() -> None:
    head = MolformerHead(8, 3, "mean", 0.1).double().eval()
    weights = {name: value.detach().numpy() for name, value in head.named_parameters()}
    hidden, valid = torch.randn(4, 6, 8, dtype=torch.float64), lengths_mask([6, 5, 3, 1], 6)
    state = Pooling("mean")(hidden, valid).numpy()
    for name in ("dense1", "dense2"):
        inner = state @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        phi = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in inner.flat])
        state = inner * phi.reshape(inner.shape) + state
    expected = state @ weights["out.weight"].T + weights["out.bias"]
    np.testing.assert_allclose(head(hidden, valid).mean_BK.detach().numpy(), expected, atol=1e-12)


def test_molformer_head_has_the_official_number_of_parameters() -> None:
    head = MolformerHead(768, 1, "mean", 0.1)
    assert sum(parameter.numel() for parameter in head.parameters()) == 1_181_953
    assert {name.partition(".")[0] for name in head.state_dict()} == {"dense1", "dense2", "out"}


def test_dropout_stands_before_the_activation() -> None:
    """All is dropped: gelu(0) = 0 leaves the skips alone."""
    head = MolformerHead(8, 2, "mean", 1.0)
    pooled = torch.randn(3, 8)
    torch.testing.assert_close(head.from_pooled(pooled).mean_BK, head.out(pooled))


@pytest.mark.parametrize("node", heads())
def test_every_head_predicts_its_targets_and_learns(node: Any) -> None:
    head = build(node, hidden_size=8, num_outputs=3)
    hidden, valid = torch.randn(5, 7, 8, requires_grad=True), lengths_mask([7, 6, 5, 4, 3], 7)
    prediction = head(hidden, valid)
    assert prediction.mean_BK.shape == (5, 3)
    prediction.mean_BK.sum().backward()
    assert hidden.grad is not None
    assert (hidden.grad[4, :3] != 0).any()
    assert (hidden.grad[4, 3:] == 0).all(), "padding has no part in it"
    assert head.has_sigma == (prediction.sigma is not None)
    if prediction.sigma is not None:
        assert prediction.sigma.shape == (5, 3)
        assert (prediction.sigma > 0).all()


@pytest.mark.parametrize("node", heads())
def test_every_head_stays_out_of_autocast(node: Any) -> None:
    head = build(node, hidden_size=8, num_outputs=3).eval()
    hidden = torch.randn(5, 7, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = head(hidden).mean_BK
    torch.testing.assert_close(inside, head(hidden).mean_BK, rtol=0, atol=0)


def test_quantiles_never_fall_together() -> None:
    """Steps of 1e-20 beside 1e3: what training on nearly equal labels makes of them."""
    head = QuantileHead(8, 1, "mean", 0.0, [0.1, 0.5, 0.9])
    prediction = head.prediction(torch.tensor([[[1e3, -50.0, -50.0]]]))
    assert (prediction.quantiles_BKQ.diff(dim=-1) > 0).all()
    assert float(prediction.sigma) > 0


def test_quantiles_rise_and_the_median_is_the_prediction() -> None:
    head = QuantileHead(8, 3, "mean", 0.0, [0.1, 0.5, 0.75, 0.9])
    prediction = head.from_pooled(30 * torch.randn(50, 8))
    assert (prediction.quantiles_BKQ.diff(dim=-1) >= 0).all()
    assert torch.equal(prediction.mean_BK, prediction.quantiles_BKQ[..., 1])
    width = prediction.quantiles_BKQ[..., 3] - prediction.quantiles_BKQ[..., 0]
    torch.testing.assert_close(prediction.sigma, width / (2 * 1.2815515655446004))


@pytest.mark.parametrize("levels", [[0.5], [0.9, 0.5], [0.1, 0.9], [0.0, 0.5], [0.5, 0.5, 0.9]])
def test_quantile_levels_are_checked(levels: list[float]) -> None:
    with pytest.raises(UserError, match=r"head\.levels"):
        QuantileHead(8, 3, "mean", 0.0, levels)


def test_sigma_of_evidence_is_that_of_drawn_labels() -> None:
    """Mean and variance from the normal-inverse-gamma, then a label from them."""
    head = EvidentialHead(8, 1, "mean", 0.0)
    numbers = torch.tensor([[[0.3, 2.0, 5.0, 1.0]]])
    prediction = head.prediction(numbers)
    nu, alpha, beta = (
        float(part) for part in (prediction.evidence_BK, prediction.shape_BK, prediction.rate_BK)
    )
    generator = np.random.default_rng(0)
    variance = beta / generator.gamma(alpha, size=400_000)
    mean = generator.normal(0.3, np.sqrt(variance / nu))
    labels = generator.normal(mean, np.sqrt(variance))
    assert float(prediction.sigma) == pytest.approx(labels.std(), rel=0.01)


def test_gaussian_head_is_finite_where_its_variance_vanishes() -> None:
    prediction = GaussianHead(8, 1, "mean", 0.0).prediction(torch.tensor([[[0.0, -1e4]]]))
    assert float(prediction.sigma) == pytest.approx(1e-3)


# -- units


def energies(num_rows: int) -> tuple[Tensor, Tensor]:
    """Totals that are nearly a sum over atoms, and a plain property, with missing labels."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 9, (num_rows, 4), generator=generator).double()
    rest = 0.04 * torch.randn(num_rows, generator=generator, dtype=torch.float64)
    total = counts @ torch.tensor([-0.6, -38.0, -54.7, -75.2]).double() + 0.03 + rest
    other = 3 + 2 * torch.randn(num_rows, generator=generator, dtype=torch.float64)
    labels = torch.stack([total, other], 1)
    labels[::7, 0], labels[1::5, 1] = NAN, NAN
    return labels, counts


def test_scale_equals_least_squares_in_numpy() -> None:
    labels, counts = energies(200)
    scale = TargetScale(2, 4)
    scale.fit(labels, counts, [True, False])
    present = ~labels[:, 0].isnan().numpy()
    inputs = np.c_[counts.numpy()[present], np.ones(present.sum())]
    wanted = labels[:, 0].numpy()[present]
    line = np.linalg.solve(inputs.T @ inputs, inputs.T @ wanted)
    rest = wanted - inputs @ line
    np.testing.assert_allclose(scale.slope_CK[:, 0].numpy(), line[:-1], rtol=1e-9)
    np.testing.assert_allclose(float(scale.intercept_K[0]), line[-1], rtol=1e-6)
    np.testing.assert_allclose(float(scale.std_K[0]), rest.std(), rtol=1e-9)
    assert not scale.slope_CK[:, 1].any()
    plain = labels[:, 1].numpy()[~labels[:, 1].isnan().numpy()]
    np.testing.assert_allclose(float(scale.mean_K[1]), plain.mean(), rtol=1e-12)
    np.testing.assert_allclose(float(scale.std_K[1]), plain.std(), rtol=1e-12)


def test_scale_is_inverted_exactly_and_gives_unit_targets() -> None:
    labels, counts = energies(300)
    scale = TargetScale(2, 4)
    scale.fit(labels, counts, [True, False])
    scaled = scale.to_scaled(labels, counts)
    assert torch.equal(scaled.isnan(), labels.isnan())
    for target in range(2):
        present = scaled[:, target][~scaled[:, target].isnan()]
        assert float(present.mean()) == pytest.approx(0, abs=1e-9)
        assert float(present.std(correction=0)) == pytest.approx(1, abs=1e-9)
    back = scale.to_raw(scaled, counts)
    torch.testing.assert_close(back, labels, rtol=0, atol=1e-9, equal_nan=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(scale.to_raw(scaled, counts).nan_to_num(), back.nan_to_num())
    torch.testing.assert_close(scale.spread_to_raw(torch.ones(1, 2))[0], scale.std_K)


def test_scale_takes_covariates_that_depend_on_each_other() -> None:
    labels, counts = energies(100)
    counts = torch.cat(
        [counts, counts[:, :1], torch.zeros(100, 1)], 1
    )  # twice the same; no fluorine
    scale = TargetScale(2, 6)
    scale.fit(labels, counts, [True, False])
    assert float(scale.std_K[0]) < 0.05
    back = scale.to_raw(scale.to_scaled(labels, counts), counts)
    torch.testing.assert_close(back, labels, rtol=0, atol=1e-9, equal_nan=True)


def test_scale_stays_float64_whatever_the_model_is_cast_to() -> None:
    labels, counts = energies(50)
    scale = TargetScale(2, 4)
    scale.fit(labels, counts, [True, False])
    before = copy.deepcopy(scale.state_dict())
    model = PropertyModel(Trunk(), MolformerHead(8, 2, "mean", 0.0), scale)
    for cast in (model.bfloat16, model.half, model.float, lambda: model.to(torch.float16)):
        cast()
        for name, value in before.items():
            assert torch.equal(scale.state_dict()[name], value), name
    assert model.head.out.weight.dtype == torch.float16
    assert model.to("meta").scale.mean_K.dtype == torch.float64


def test_scale_survives_a_checkpoint(tmp_path: Path) -> None:
    labels, counts = energies(50)
    scale = TargetScale(2, 4)
    scale.fit(labels, counts, [True, False])
    torch.save(scale.state_dict(), tmp_path / "scale.ckpt")
    other = TargetScale(2, 4)
    other.load_state_dict(torch.load(tmp_path / "scale.ckpt", weights_only=True))
    assert torch.equal(
        other.to_scaled(labels, counts).nan_to_num(), scale.to_scaled(labels, counts).nan_to_num()
    )


def test_scale_refuses_what_leaves_nothing_to_learn() -> None:
    labels, counts = energies(40)
    same, linear = labels.clone(), labels.clone()
    same[:, 1] = 0.1
    linear[:, 0] = counts @ torch.arange(4).double() - 100
    for bad in (same, linear):
        with pytest.raises(UserError, match=rf"target {int(bad is same)} leaves nothing to learn"):
            TargetScale(2, 4).fit(bad, counts, [True, False])
    with pytest.raises(UserError, match="target 1 has no label"):
        TargetScale(2, 4).fit(labels * torch.tensor([1.0, NAN]), counts, False)
    with pytest.raises(UserError, match="target 0 has an infinite label"):
        TargetScale(2, 4).fit(labels * torch.tensor([math.inf, 1.0]), counts, False)
    with pytest.raises(UserError, match="target gap leaves nothing to learn"):
        TargetScale(2, 4).fit(same, counts, False, ["mu", "gap"])
    with pytest.raises(UserError, match="target toxic has the label"):
        ProbabilityScale(1, 4).fit(torch.tensor([[2.0]]), None, False, ["toxic"])


def test_probabilities_are_the_scale_of_classes() -> None:
    scale = ProbabilityScale(1, 0)
    scale.fit(torch.tensor([[0.0], [1.0], [NAN]]), None, False)
    logits = torch.tensor([[-2.0], [0.0]])
    expected = torch.tensor([[1 / (1 + math.exp(2))], [0.5]], dtype=torch.float64)
    torch.testing.assert_close(scale.to_raw(logits), expected)
    with pytest.raises(UserError, match="target 0 has the label 2"):
        scale.fit(torch.tensor([[0.0], [2.0]]), None, False)
    with pytest.raises(UserError, match="target 0 has no label"):
        scale.fit(torch.tensor([[NAN]]), None, False)


# -- the model


def test_prediction_is_the_head_in_units_and_ignores_company_and_order() -> None:
    counts = energies(6)[1]
    scale = TargetScale(2, 4)
    scale.fit(*energies(99), [True, False])
    model = PropertyModel(Trunk(), MolformerHead(8, 2, "mean", 0.1), scale).eval()
    tokens, lengths = torch.randint(11, (6, 9)), [9, 7, 5, 4, 3, 2]
    valid = lengths_mask(lengths, 9)
    predicted = model.predict(tokens, valid, counts)
    assert predicted.dtype == torch.float64
    for row, length in enumerate(lengths):
        alone = tokens[row : row + 1, :length]
        pooled = model.embed(alone)
        torch.testing.assert_close(pooled, model.embed(tokens, valid)[row : row + 1])
        z = model.head.from_pooled(pooled).mean_BK.double()[0]
        expected = scale.std_K * z + scale.mean_K + counts[row] @ scale.slope_CK + scale.intercept_K
        torch.testing.assert_close(predicted[row], expected, rtol=0, atol=1e-5)
    order = torch.randperm(6)
    torch.testing.assert_close(
        model.predict(tokens[order], valid[order], counts[order]), predicted[order]
    )


def test_parameter_names() -> None:
    model = PropertyModel(Trunk(), MolformerHead(8, 2, "mean", 0.1), TargetScale(2, 4))
    names = set(model.state_dict())
    assert {"trunk.embedding.weight", "head.dense1.weight", "head.dense2.bias"} < names
    assert {"scale.slope_CK", "scale.intercept_K", "scale.mean_K", "scale.std_K"} < names


def test_it_learns_eight_sequences_with_missing_labels() -> None:
    torch.manual_seed(0)
    labels, counts = energies(8)
    scale = TargetScale(2, 4)
    scale.fit(labels, counts, False)
    model = PropertyModel(Trunk(), MolformerHead(8, 2, "mean", 0.0), scale)
    objective = Regression("l1", 1.0, 0.2, None)
    tokens = torch.randint(11, (8, 9))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        objective(model(tokens), scale.to_scaled(labels, counts)).mean.backward()
        optimizer.step()
    with torch.no_grad():
        error = (model.predict(tokens, None, counts) - labels).abs() / scale.std_K
    assert float(error.nanmean()) < 0.05
