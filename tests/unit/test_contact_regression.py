"""Contacts read from a frozen model: the correction against a loop, the regression by its own conditions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from lit_seqlm.config import CONF, build, register
from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.metrics.contacts import esm
from lit_seqlm.metrics.pair_features import (
    attention_features,
    attention_of,
    average_product_corrected,
    product_features,
)
from lit_seqlm.optim.contact_regression import ContactRegression

Protein = tuple[np.ndarray, np.ndarray]


def test_the_correction_equals_a_loop() -> None:
    maps = np.random.default_rng(0).random((2, 3, 6, 6))
    found = average_product_corrected(maps)
    for a, h in np.ndindex(2, 3):
        one = maps[a, h]
        for i in range(6):
            for j in range(6):
                row = sum(one[i, k] for k in range(6))
                column = sum(one[k, j] for k in range(6))
                expected = one[i, j] - row * column / sum(one.flat)
                assert found[a, h, i, j] == pytest.approx(expected, abs=1e-12)


def test_the_correction_leaves_nothing_of_an_outer_product() -> None:
    """A map that its rows and columns explain tells nothing of pairs."""
    rng = np.random.default_rng(1)
    maps = np.outer(rng.random(5), rng.random(5))
    np.testing.assert_allclose(average_product_corrected(maps), 0, atol=1e-12)
    np.testing.assert_array_equal(average_product_corrected(np.zeros((2, 5, 5))), 0)


def test_attention_features_cut_ends_first() -> None:
    rng = np.random.default_rng(2)
    maps = rng.random((2, 3, 9, 9))
    found = attention_features(maps, length=5, begin=1)
    assert found.shape == (5, 5, 6)
    np.testing.assert_allclose(found, found.transpose(1, 0, 2), atol=1e-15)
    inner = maps[1, 2, 1:6, 1:6]
    expected = average_product_corrected(inner + inner.T)
    np.testing.assert_allclose(found[..., 5], expected, atol=1e-12)
    louder = maps.copy()
    louder[:, :, [0, 6, 7, 8]] = louder[..., [0, 6, 7, 8]] = 99
    np.testing.assert_array_equal(attention_features(louder, 5, 1), found)


def proteins(
    num: int, length: int, seed: int, signal: Callable[[np.ndarray, np.random.Generator], Any]
) -> list[Protein]:
    """Ten features of noise, the third of which also tells contacts; symmetric, some pairs without label."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(num):
        label = np.triu(rng.random((length, length)) < 0.05, 1)
        label = (label | label.T).astype(np.int8)
        features = rng.normal(size=(length, length, 10))
        features = features + features.transpose(1, 0, 2)
        features[..., 3] += signal(label, rng)
        missing = rng.integers(length, size=2)
        label[missing] = label[:, missing] = -1
        made.append((features, label))
    return made


def planted(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 6.0 * label


def test_a_planted_feature_is_found_and_noise_is_not_used() -> None:
    found = ContactRegression.fit(proteins(5, 30, 0, planted), penalty=20, least_apart=6, seed=0)
    assert set(np.flatnonzero(found.weight_F)) == {3}
    features, label = proteins(1, 60, 9, planted)[0]
    probability = found.predict(features)
    assert esm(probability, label)["long"]["p_at_l5"] > 0.9
    assert ((probability > 0) & (probability < 1)).all()
    np.testing.assert_array_equal(probability, probability.T)
    chance = esm(np.random.default_rng(0).random((60, 60)), label)["long"]["p_at_l5"]
    assert chance < 0.5


def test_the_weights_are_a_minimum() -> None:
    """C times the slope of the loss is -sign(w) where w is not zero, and within [-1, 1] where it is."""
    made, penalty = proteins(3, 30, 1, planted), 3.0
    found = ContactRegression.fit(made, penalty=penalty, least_apart=6, seed=0)
    slope, intercept, pairs = np.zeros(10), 0.0, 0
    for features, label in made:
        for i in range(30):
            for j in range(i + 6, 30):
                if label[i, j] != -1:
                    wrong = 1 / (1 + np.exp(-(features[i, j] @ found.weight_F + found.bias))) - label[i, j]  # fmt: skip
                    slope += wrong * features[i, j] / penalty
                    intercept += wrong / penalty
                    pairs += 1
    used = found.weight_F != 0
    assert 1 < used.sum() < 10
    np.testing.assert_allclose(slope[used], -np.sign(found.weight_F[used]), atol=0.02)
    assert (np.abs(slope[~used]) <= 1.02).all()
    assert intercept == pytest.approx(-np.sign(found.bias), abs=0.02)
    assert found.num_pairs == pairs


def test_the_same_seed_gives_the_same_weights() -> None:
    made = proteins(3, 30, 2, planted)
    first, second = (ContactRegression.fit(made, 3.0, 6, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.weight_F, second.weight_F)
    assert first.bias == second.bias


def test_features_of_one_order_are_averaged() -> None:
    regression = ContactRegression(np.ones(1), 0.0, 1, 1)
    features = np.array([[0.0, 1.0], [3.0, 0.0]])[..., None]
    probability = regression.predict(features)
    assert probability[0, 1] == probability[1, 0] == pytest.approx(1 / (1 + np.exp(-2)))


def test_products_of_states_are_features_too() -> None:
    """Residues of one sign touch."""
    made = []
    for seed in range(4):
        states = np.random.default_rng(seed).normal(size=(40, 5))
        touch = np.outer(states[:, 2], states[:, 2]) > 0.7
        made.append((product_features(states), touch.astype(np.int8)))
    found = ContactRegression.fit(made[:3], penalty=1.0, least_apart=6, seed=0)
    assert np.abs(found.weight_F).argmax() == 2
    assert esm(found.predict(made[3][0]), made[3][1])["medium"]["p_at_l5"] == 1


def test_what_cannot_be_fitted_says_why() -> None:
    features, label = proteins(1, 30, 3, planted)[0]
    nothing = np.where(label == 1, 0, label)
    with pytest.raises(UserError, match="0 of 0 pairs of 0 proteins are contacts"):
        ContactRegression.fit([], 1.0, 6, 0)
    with pytest.raises(
        UserError, match=r"0 of \d+ pairs of 1 proteins are contacts: a regression needs"
    ):
        ContactRegression.fit([(features, nothing)], 1.0, 6, 0)
    with pytest.raises(UserError, match="0 of 0 pairs of 1 proteins"):
        ContactRegression.fit([(features[:5, :5], label[:5, :5])], 1.0, 6, 0)
    with pytest.raises(UserError, match="penalty=0"):
        ContactRegression.fit([(features, label)], 0, 6, 0)
    bad, whole = features.copy(), np.where(label == -1, 0, label)
    bad[2, 20, 0] = np.nan
    with pytest.raises(DivergedError, match="features of 1 pairs are not finite"):
        ContactRegression.fit([(bad, whole)], 1.0, 6, 0)


def test_attention_of_an_encoder_does_not_see_padding() -> None:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", overrides=["model=mlm_nano"])
    torch.manual_seed(0)
    trunk = build(cfg.model, vocab_size=32).trunk.eval()
    tokens, lengths = torch.randint(5, 30, (3, 16)), [14, 9, 1]
    valid = torch.arange(16) < torch.tensor(lengths)[:, None] + 2
    together = list(attention_of(trunk, tokens, valid, lengths, 1))
    for row, length in enumerate(lengths):
        (alone,) = attention_of(trunk, tokens[row : row + 1, : length + 2], None, [length], 1)
        assert alone.shape[:2] == (length, length)
        np.testing.assert_allclose(together[row], alone, atol=1e-5)
    with pytest.raises(UserError, match="Linear has no attention to read contacts from"):
        next(attention_of(torch.nn.Linear(1, 1), tokens, valid, lengths, 1))
