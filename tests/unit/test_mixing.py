"""Every way to weigh memories: proper, causal, and as good as theory says."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lit_seqlm.cache.mixing import em, online
from lit_seqlm.cache.mixing.components import stack
from lit_seqlm.cache.mixing.features import Columns
from lit_seqlm.cache.mixing.likelihood import best_weight, best_weights
from lit_seqlm.cache.mixing.settings import best_settings
from lit_seqlm.cache.mixing.strategies import MIXINGS, MixingOptions, make_mixing
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError

OPTIONS = MixingOptions({"local": 0.2, "far": 0.3}, 0.1, 300, 20.0, 1e-4)
CHOSEN = {"local": 1, "far": 0}
SETTINGS = {"local": [{"theta": 0.1}, {"theta": 0.5}], "far": [{"k": 8}]}
VOCABULARY = 5


def world(num_tokens: int, seed: int, sharpness: float = 1.0):
    """(targets (N,), log p of every word: static (N, V), memories (S, N, V), features): proper, empty at first."""
    generator = np.random.default_rng(seed)

    def distributions(*shape: int) -> np.ndarray:
        logits = sharpness * generator.normal(size=(*shape, VOCABULARY))
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    static = distributions(num_tokens)
    words = np.array([generator.choice(VOCABULARY, p=np.exp(row)) for row in static])
    memories = {name: distributions(len(rows), num_tokens) for name, rows in SETTINGS.items()}
    holes = generator.random(memories["local"].shape) < 0.3
    holes[..., 0] = False
    with np.errstate(divide="ignore"):
        kept = np.where(holes, 0, np.exp(memories["local"]))
        memories["local"] = np.log(kept / kept.sum(-1, keepdims=True))
    memories["local"][:, :3], memories["far"][:, 5:9] = np.nan, np.nan
    features = {
        "entropy": -(np.exp(static) * static).sum(-1),
        "local/nearest": generator.exponential(size=num_tokens),
        "far/farthest": generator.exponential(size=num_tokens),
    }
    features["local/nearest"][:3], features["far/farthest"][5:9] = np.nan, np.inf
    features["local/nearest"][4] = 0
    return words, static, memories, features


def record_of(words, static, memories, features) -> Record:
    places = np.arange(len(words))
    return Record(
        static[places, words],
        words.astype(np.int64),
        {name: log_p[:, places, words].astype(np.float32) for name, log_p in memories.items()},
        SETTINGS,
        {name: values.astype(np.float32) for name, values in features.items()},
    )


def record(num_tokens: int, seed: int, sharpness: float = 1.0) -> Record:
    return record_of(*world(num_tokens, seed, sharpness))


def by_loop(weights: dict[str, float], log_p: Record, chosen: dict[str, int]) -> list[float]:
    """The definition, token by token, with probabilities."""
    mixed = []
    for place, static in enumerate(log_p.static_N):
        probability, rest = 0.0, 1.0
        for name, row in chosen.items():
            value = float(log_p.memories[name][row, place])
            if not math.isnan(value):
                probability += weights[name] * math.exp(value)
                rest -= weights[name]
        mixed.append(math.log(probability + rest * math.exp(static)))
    return mixed


@pytest.mark.parametrize("name", MIXINGS)
def test_probabilities_of_all_words_sum_to_one(name):
    words, *parts = world(40, seed=0)
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(record(300, seed=1), CHOSEN)
    for place in range(40):
        total = 0.0
        for word in range(VOCABULARY):
            candidate = words.copy()
            candidate[place] = word
            total += math.exp(mixing.log_prob(record_of(candidate, *parts), CHOSEN)[place])
        assert total == pytest.approx(1, abs=1e-6), place  # memories are float32


@pytest.mark.parametrize("name", MIXINGS)
def test_the_future_does_not_change_the_past(name):
    past, future = world(60, seed=0), world(60, seed=9)
    cut = 37
    changed = [np.concatenate([past[0][:cut], future[0][cut:]])]
    changed.append(np.concatenate([past[1][:cut], future[1][cut:]]))
    for part in (2, 3):
        axis = 1 if part == 2 else 0
        changed.append(
            {
                key: np.concatenate(
                    [
                        past[part][key].take(range(cut), axis),
                        future[part][key].take(range(cut, 60), axis),
                    ],
                    axis,
                )
                for key in past[part]
            }
        )
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(record(300, seed=1), CHOSEN)
    original = mixing.log_prob(record_of(*past), CHOSEN)
    edited = mixing.log_prob(record_of(*changed), CHOSEN)
    np.testing.assert_array_equal(edited[:cut], original[:cut])
    assert (edited[cut:] != original[cut:]).any()


@pytest.mark.parametrize("name", ["online", "em"])
def test_weights_found_on_the_stream_do_learn_from_its_past(name):
    """Otherwise the test above would be empty for them."""
    words, *parts = world(60, seed=0)
    edited = words.copy()
    edited[10] = (edited[10] + 1) % VOCABULARY
    mixing = make_mixing(name, OPTIONS)
    before = mixing.log_prob(record_of(words, *parts), CHOSEN)
    after = mixing.log_prob(record_of(edited, *parts), CHOSEN)
    assert (before[11:] != after[11:]).mean() > 0.9


@pytest.mark.parametrize("name", MIXINGS)
def test_without_memories_the_static_model_stands_bit_for_bit(name):
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(record(100, seed=0), {})
    text = record(100, seed=1)
    np.testing.assert_array_equal(mixing.log_prob(text, {}), text.static_N)


@pytest.mark.parametrize("name", ["fixed", "em"])
def test_weights_of_zero_leave_the_static_model_bit_for_bit(name):
    mixing = make_mixing(name, replace(OPTIONS, lam={"local": 0, "far": 0.0}))
    text = record(100, seed=1)
    np.testing.assert_array_equal(mixing.log_prob(text, CHOSEN), text.static_N)


def test_a_useless_memory_is_tuned_to_zero_and_the_static_model_stands_bit_for_bit():
    valid = record(2000, seed=0)
    valid.memories["local"][:] = valid.static_N - 1
    valid.memories["far"][:] = -np.inf
    mixing = make_mixing("tuned", OPTIONS)
    mixing.fit(valid, CHOSEN)
    assert mixing.describe()["lam"] == {"local": 0, "far": 0}
    np.testing.assert_array_equal(mixing.log_prob(valid, CHOSEN), valid.static_N)


@pytest.mark.parametrize("name", MIXINGS)
def test_empty_memories_leave_the_static_model(name):
    text = record(100, seed=1)
    for log_p_SN in text.memories.values():
        log_p_SN[:] = np.nan
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(text, CHOSEN)
    np.testing.assert_allclose(mixing.log_prob(text, CHOSEN), text.static_N, rtol=0, atol=1e-14)


@pytest.mark.parametrize("lam", [{"local": 0.2, "far": 0.3}, {"local": 0.9, "far": 0}])
def test_fixed_weights_are_those_of_a_loop(lam):
    text = record(200, seed=2)
    found = make_mixing("fixed", replace(OPTIONS, lam=lam)).log_prob(text, CHOSEN)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_loop(lam, text, CHOSEN), rtol=1e-12)


def test_tiny_and_impossible_probabilities_mix_in_log_space():
    text = record(10, seed=0).cut(0, 4)
    text.static_N[:] = [-2000, -np.inf, -2000, -np.inf]
    text.memories["local"][1] = [-2000, -3, -np.inf, -np.inf]
    mixing = make_mixing("fixed", replace(OPTIONS, lam={"local": 0.5}))
    found = mixing.log_prob(text, {"local": 1})
    np.testing.assert_allclose(found, [-2000, math.log(0.5) - 3, math.log(0.5) - 2000, -np.inf])


@pytest.mark.parametrize("name", MIXINGS)
def test_a_token_that_nothing_explains_costs_everything_and_spoils_nothing(name):
    """Later weights are finite, and as if the token had not been there."""
    text = record(50, seed=0)
    text.static_N[20] = text.memories["local"][1, 20] = text.memories["far"][0, 20] = -np.inf
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(text, CHOSEN)
    found = mixing.log_prob(text, CHOSEN)
    assert found[20] == -np.inf
    assert np.isfinite(np.delete(found, 20)).all()


# Weights of maximum likelihood


def mean_log(weights: np.ndarray, log_p_CN: np.ndarray) -> float:
    return float(np.log(weights @ np.exp(log_p_CN)).mean())


@pytest.mark.parametrize("seed", range(5))
def test_one_weight_is_that_of_a_golden_section(seed):
    log_p_CN = stack(record(500, seed, sharpness=2.0), {"local": 0})
    low, high, ratio = 0.0, 1.0, (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if mean_log(np.array([1 - left, left]), log_p_CN) > mean_log(
            np.array([1 - right, right]), log_p_CN
        ):
            high = right
        else:
            low = left
    # The curve is flat at its top: a search by values sees half of the digits.
    assert best_weight(*log_p_CN) == pytest.approx((low + high) / 2, abs=1e-6)
    assert best_weights(log_p_CN, 1e-12, 100)[1] == pytest.approx(best_weight(*log_p_CN), abs=1e-8)


@np.errstate(divide="raise", invalid="raise")
def test_one_weight_at_the_ends_and_with_impossible_targets():
    better = np.array([-1.0, -2.0])
    assert best_weight(better - 1, better) == 1
    assert best_weight(better, better - 1) == 0
    impossible = np.array([-np.inf, -np.inf])
    assert best_weight(impossible, better) == 1
    assert best_weight(better, impossible) == 0
    assert best_weight(impossible, impossible) == 0
    # Only the memory knows the first, only the model the second: half each.
    assert best_weight(np.array([-np.inf, -1]), np.array([-1, -np.inf])) == pytest.approx(0.5)


def blurred(seed: int, num_memories: int, num_tokens: int = 1000) -> np.ndarray:
    """log p of components that resemble each other, (C, N); some give a target no mass."""
    generator = np.random.default_rng(seed)
    common = generator.normal(-4, 2, num_tokens)
    own = generator.normal(0, 1.5, (1 + num_memories, num_tokens))
    log_p_CN = np.minimum(common + own + generator.normal(0, 0.3, (1 + num_memories, 1)), -0.01)
    log_p_CN[1:][generator.random((num_memories, num_tokens)) < 0.2] = -np.inf
    return log_p_CN


@pytest.mark.parametrize(("num_memories", "divisions"), [(1, 1000), (2, 50), (3, 20)])
def test_no_point_of_a_grid_beats_the_tuned_weights(num_memories, divisions):
    log_p_CN = blurred(num_memories, num_memories)
    found = best_weights(log_p_CN, 1e-10, 2000)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= 0
    best = max(
        mean_log(np.array([divisions - sum(point), *point]) / divisions, log_p_CN)
        for point in itertools.product(range(divisions), repeat=num_memories)
        if sum(point) < divisions
    )
    assert best <= mean_log(found, log_p_CN) + 1e-10
    assert best > mean_log(found, log_p_CN) - 1e-2


@pytest.mark.parametrize("num_memories", [1, 2, 3, 5])
def test_tuned_weights_are_those_of_expectation_maximisation(num_memories):
    log_p_CN = blurred(10 + num_memories, num_memories)
    probability = np.exp(log_p_CN)
    weight_C = np.full(1 + num_memories, 1 / (1 + num_memories))
    for _ in range(5000):
        weight_C *= (probability / (weight_C @ probability)).mean(1)
    found = best_weights(log_p_CN, 1e-10, 2000)
    np.testing.assert_allclose(found, weight_C, atol=1e-4)
    assert mean_log(found, log_p_CN) >= mean_log(weight_C, log_p_CN) - 1e-10


@np.errstate(divide="raise", invalid="raise")
def test_targets_that_the_static_model_or_nothing_explains():
    log_p_CN = blurred(4, 2)
    log_p_CN[0, :50] = -np.inf
    impossible = np.full((3, 20), -np.inf)
    explained = log_p_CN[:, log_p_CN.max(0) > -np.inf]
    assert explained.shape[1] < 1000
    found = best_weights(np.hstack([log_p_CN, impossible]), 1e-10, 2000)
    np.testing.assert_allclose(found, best_weights(explained, 1e-10, 2000), atol=1e-9)
    for point in ((0.4, 0.3, 0.3), (0.3, 0.5, 0.2), (0.2, 0.2, 0.6), tuple(found[[0, 2, 1]])):
        assert mean_log(np.array(point), explained) < mean_log(found, explained)
    np.testing.assert_array_equal(best_weights(impossible, 1e-10, 2000), [1, 0, 0])


def test_memories_that_are_twins_share_what_one_would_get():
    log_p_CN = blurred(3, 1)
    alone = best_weights(log_p_CN, 1e-10, 2000)
    twins = best_weights(log_p_CN[[0, 1, 1]], 1e-10, 2000)
    assert twins[1:].sum() == pytest.approx(alone[1], abs=1e-6)


def test_weights_that_are_not_found_in_time_are_told(caplog):
    best_weights(blurred(0, 3), 0.0, 2)
    assert "could still be gained" in caplog.text


def test_the_best_setting_is_that_of_a_dense_search():
    valid = record(400, seed=3)
    valid.memories["local"][1] = np.minimum(valid.memories["local"][1] + 0.3, -1e-3)
    chosen, table = best_settings(valid)
    expected = {}
    for name, settings in SETTINGS.items():
        scores = []
        for row in range(len(settings)):
            log_p_CN = stack(valid, {name: row})
            scores.append(
                max(mean_log(np.array([1 - w, w]), log_p_CN) for w in np.linspace(0, 0.999, 1000))
            )
            line = next(one for one in table if (one.memory, one.row) == (name, row))
            assert -line.nll == pytest.approx(scores[-1], abs=1e-5)
            assert line.ppl == pytest.approx(math.exp(line.nll))
            assert line.setting == settings[row]
        expected[name] = int(np.argmax(scores))
    assert chosen == expected == {"local": 1, "far": 0}
    assert len(table) == 3


# Weights found on the stream


def test_bayes_costs_at_most_the_log_of_the_number_of_experts():
    grid = online.simplex_grid(3, 10)
    assert len(grid) == math.comb(12, 2)
    np.testing.assert_allclose(grid.sum(1), 1)
    assert len({tuple(point) for point in grid.round(6)}) == len(grid)
    for seed in range(5):
        text = record(400, seed, sharpness=2.0)
        found = make_mixing("online", OPTIONS).log_prob(text, CHOSEN).sum()
        with np.errstate(divide="ignore"):
            experts = np.log(grid @ np.exp(stack(text, CHOSEN))).sum(1)
        assert found >= experts.max() - math.log(len(grid)) - 1e-9
        # Exactly the mean over the experts of the probability of the whole stream.
        assert found == pytest.approx(np.logaddexp.reduce(experts) - math.log(len(grid)), rel=1e-12)


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
@pytest.mark.parametrize("module", [online, em], ids=["online", "em"])
def test_blocks_change_nothing(monkeypatch, block, module):
    text = record(500, seed=4)
    name = module.__name__.split(".")[-1]
    expected = make_mixing(name, OPTIONS).log_prob(text, CHOSEN)
    monkeypatch.setattr(module, "BLOCK", block)
    found = make_mixing(name, OPTIONS).log_prob(text, CHOSEN)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_the_grid_gets_coarser_with_more_memories():
    for num_memories in range(6):
        divisions = online.Online(0.05, 300)._divisions(num_memories)
        assert math.comb(divisions + num_memories, num_memories) <= 300
        assert divisions == 20 or math.comb(divisions + 1 + num_memories, num_memories) > 300


def test_online_em_is_a_loop_over_shares():
    text = record(300, seed=5)
    log_p_CN = stack(text, CHOSEN)
    weight_C, expected = np.array([0.5, 0.2, 0.3]), []
    shares = 20 * weight_C
    for place in range(300):
        joint = shares / shares.sum() * np.exp(log_p_CN[:, place])
        expected.append(math.log(joint.sum()))
        shares = shares + joint / joint.sum()
    found = make_mixing("em", OPTIONS)
    np.testing.assert_allclose(found.log_prob(text, CHOSEN), expected, rtol=1e-12)
    end = found.describe()["lam_at_the_end"]
    np.testing.assert_allclose([*end.values()], shares[1:] / shares.sum(), rtol=1e-12)


@pytest.mark.parametrize("name", ["online", "em"])
def test_weights_found_on_a_long_stream_are_those_of_hindsight(name):
    """Targets drawn from a mixture whose weights lie on the grid; some targets the memories give no mass."""
    generator = np.random.default_rng(6)
    _, static, memories, features = world(20_000, seed=6, sharpness=2.0)
    for log_p in memories.values():
        log_p[np.isnan(log_p)] = -math.log(VOCABULARY)
    true = (
        0.3 * np.exp(static) + 0.5 * np.exp(memories["local"][1]) + 0.2 * np.exp(memories["far"][0])
    )
    words = (true.cumsum(1) < generator.random((20_000, 1))).sum(1).clip(max=VOCABULARY - 1)
    text = record_of(words, static, memories, features)
    assert (text.memories["local"][1] == -np.inf).any()
    mixing = make_mixing(name, OPTIONS)
    found = mixing.log_prob(text, CHOSEN)
    end = mixing.describe()["lam_at_the_end"]
    np.testing.assert_allclose([end["local"], end["far"]], [0.5, 0.2], atol=0.06)
    hindsight = by_loop({"local": 0.5, "far": 0.2}, text, CHOSEN)
    assert found.mean() > np.mean(hindsight) - 3e-3


@pytest.mark.parametrize("name", MIXINGS)
def test_nothing_beats_the_true_distribution(name):
    """Targets are drawn from the static model; a memory can only seem useful by chance."""
    valid, test = record(4000, seed=7), record(4000, seed=8)
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(valid, CHOSEN)
    gain_N = mixing.log_prob(test, CHOSEN) - test.static_N
    noise = gain_N.std() / math.sqrt(len(gain_N))
    assert gain_N.mean() <= 3 * noise
    if name in ("tuned", "online", "gate"):
        assert gain_N.mean() > -0.005  # these notice that they are of no use


# The gate


def switching(num_tokens: int, seed: int) -> Record:
    """The memory is right where its nearest state is near, wrong elsewhere."""
    generator = np.random.default_rng(seed)
    near_N = generator.random(num_tokens) < 0.5
    distances_N = np.where(near_N, 0.05, 2.0) * generator.uniform(0.5, 1.5, num_tokens)
    static_N = generator.normal(-4, 0.5, num_tokens)
    memory_N = np.where(near_N, -0.5, -9.0)
    features = {"entropy": generator.random(num_tokens), "local/nearest": distances_N}
    features["local/nearest"][:5], memory_N[:5] = np.nan, np.nan
    return Record(
        static_N,
        np.zeros(num_tokens, dtype=np.int64),
        {"local": memory_N[None].astype(np.float32)},
        {"local": [{}]},
        {name: values_N.astype(np.float32) for name, values_N in features.items()},
    )


def test_the_gate_finds_when_to_trust_a_memory():
    valid, test = switching(1000, seed=0), switching(1000, seed=1)
    scores = {}
    for name in ("tuned", "gate"):
        mixing = make_mixing(name, OPTIONS)
        mixing.fit(valid, {"local": 0})
        scores[name] = mixing.log_prob(test, {"local": 0}).mean()
    oracle = np.fmax(test.static_N, test.memories["local"][0]).mean()
    assert scores["gate"] > scores["tuned"] + 0.3
    assert scores["gate"] <= oracle
    assert scores["gate"] > oracle - 0.1
    coefficients = mixing.describe()["coefficients"]["local"]
    assert coefficients["local/nearest"] < -1
    assert abs(coefficients["entropy"]) < 0.5


def test_the_gate_is_fitted_to_the_bottom():
    """No random change of the coefficients lowers what is minimised, and it is no worse than constant weights."""
    valid = record(500, seed=11)
    gate = make_mixing("gate", replace(OPTIONS, penalty=1e-2))
    gate.fit(valid, CHOSEN)
    penalty, bias, matrix = gate.penalty, gate.bias_M.copy(), gate.matrix_MF.copy()

    def loss() -> float:
        return penalty * np.square(gate.matrix_MF).sum() - gate.log_prob(valid, CHOSEN).mean()

    least = loss()
    generator = np.random.default_rng(0)
    for size in (0.3, 0.01):
        for _ in range(100):
            gate.bias_M = bias + size * generator.normal(size=bias.shape)
            gate.matrix_MF = matrix + size * generator.normal(size=matrix.shape)
            assert loss() > least
    constant = make_mixing("tuned", OPTIONS)
    constant.fit(valid, CHOSEN)
    assert least < -constant.log_prob(valid, CHOSEN).mean() + 1e-9


def test_a_strong_penalty_leaves_the_tuned_weights():
    valid = switching(1000, seed=0)
    found = {}
    for name in ("gate", "tuned"):
        mixing = make_mixing(name, replace(OPTIONS, penalty=1e6))
        mixing.fit(valid, {"local": 0})
        found[name] = mixing.log_prob(valid, {"local": 0})
    np.testing.assert_allclose(found["gate"], found["tuned"], atol=1e-4)
    assert 0.1 < mixing.describe()["lam"]["local"] < 0.9


def test_the_gate_never_looks_at_the_target():
    valid, test = record(300, seed=1), record(60, seed=2)
    gate = make_mixing("gate", OPTIONS)
    gate.fit(valid, CHOSEN)
    before = gate.log_weights(test)
    test.static_N[:], test.words_N[:] = -1, 0
    for log_p_SN in test.memories.values():
        log_p_SN[:] = -2
    np.testing.assert_array_equal(gate.log_weights(test), before)
    np.testing.assert_allclose(np.exp(before).sum(0), 1)


def test_the_gate_can_be_fitted_inside_inference_mode():
    gate, again = make_mixing("gate", OPTIONS), make_mixing("gate", OPTIONS)
    gate.fit(record(300, seed=1), CHOSEN)
    with torch.inference_mode():
        again.fit(record(300, seed=1), CHOSEN)
    assert again.describe() == gate.describe()


def test_columns_are_standardised_on_validation_and_gaps_are_marked():
    valid = record(1000, seed=1)
    columns = Columns()
    found = columns.fit(valid)
    assert columns.names == [
        "entropy",
        "far/farthest",
        "local/nearest",
        "position",
        "no far/farthest",
        "no local/nearest",
    ]
    nearest = valid.features["local/nearest"].astype(np.float64)
    logs = np.log(np.maximum(nearest[3:], 1e-6))
    expected = ((logs - logs.mean()) / logs.std()).clip(-5, 5)
    np.testing.assert_allclose(found[3:, 2], expected, rtol=1e-12)
    np.testing.assert_array_equal(found[:3, 2], 0)
    np.testing.assert_array_equal(found[:, 5], np.arange(1000) < 3)
    np.testing.assert_array_equal(np.flatnonzero(found[:, 4]), range(5, 9))
    other = record(50, seed=2)
    other.features["entropy"][7], other.features["entropy"][8] = np.inf, 1e9
    found = columns.standardised(other)
    assert (found[7, 0], found[8, 0]) == (0, 5)
    assert np.isfinite(found).all()


def test_a_feature_that_is_constant_or_never_known_does_no_harm():
    valid = record(100, seed=1)
    valid.features["entropy"][:], valid.features["local/nearest"][:] = 3, np.nan
    gate = make_mixing("gate", OPTIONS)
    gate.fit(valid, CHOSEN)
    assert np.isfinite(gate.log_prob(valid, CHOSEN)).all()


def test_a_record_without_a_feature_of_validation_is_told():
    gate, test = make_mixing("gate", OPTIONS), record(10, seed=0)
    gate.fit(record(100, seed=1), CHOSEN)
    test.features["entropi"] = test.features.pop("entropy")
    with pytest.raises(UserError, match="Did you mean entropi"):
        gate.log_prob(test, CHOSEN)


# Short streams, messages, cards


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("num_tokens", [0, 1])
def test_short_streams(name, num_tokens):
    text = record(10, seed=0).cut(0, num_tokens)
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(text, CHOSEN)
    assert mixing.log_prob(text, CHOSEN).shape == (num_tokens,)
    assert best_settings(text)[0] == {"local": 0, "far": 0}


@pytest.mark.parametrize("name", MIXINGS)
def test_what_was_found_is_plain_values(name):
    mixing = make_mixing(name, OPTIONS)
    mixing.fit(record(100, seed=0), CHOSEN)
    mixing.log_prob(record(50, seed=1), CHOSEN)
    card = mixing.describe()
    assert json.loads(json.dumps(card)) == card
    assert card["weights"] == name


@pytest.mark.parametrize(
    ("lam", "chosen", "told"),
    [
        ({"local": -0.1}, {"local": 0}, r"cache\.lam=-0\.1"),
        ({"local": 1.1}, {"local": 0}, r"cache\.lam=1\.1"),
        ({"local": math.nan}, {"local": 0}, r"cache\.lam=nan"),
        ({}, {"local": 0}, r"cache\.lam is not set"),
        ({"local": 0.1}, CHOSEN, r"cache\.components\.far\.lam is not set"),
        ({"local": 0.1, "far": 2}, CHOSEN, r"cache\.components\.far\.lam=2"),
        ({"local": 0.6, "far": 0.5}, CHOSEN, r"sum to 1\.1"),
    ],
)
@pytest.mark.parametrize("name", ["fixed", "em"])
def test_weights_that_are_none_are_told(name, lam, chosen, told):
    with pytest.raises(UserError, match=told):
        make_mixing(name, replace(OPTIONS, lam=lam)).fit(record(10, seed=0), chosen)


def test_weights_may_use_up_everything():
    """0.1 + 0.2 + 0.7 is not 1 in binary."""
    text = record(20, seed=0)
    mixing = make_mixing("fixed", replace(OPTIONS, lam={"local": 0.3, "far": 0.7 + 1e-16}))
    assert np.isfinite(mixing.log_prob(text, {"far": 0, "local": 0})[:3]).all()


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("online", {"step": 0}, "task.mixing.step=0"),
        ("online", {"step": 0.3}, "task.mixing.step=0.3"),
        ("online", {"step": 2.0}, "task.mixing.step=2.0"),
        ("online", {"max_experts": 1}, "task.mixing.max_experts=1"),
        ("em", {"start_count": 0}, "task.mixing.start_count=0"),
        ("gate", {"penalty": 0}, "task.mixing.penalty=0"),
        ("onlin", {}, "task.weights=onlin: no such strategy. Did you mean online?"),
    ],
)
def test_options_that_make_no_strategy_are_told(name, change, told):
    with pytest.raises(UserError) as error:
        make_mixing(name, replace(OPTIONS, **change))
    assert told in str(error.value)
