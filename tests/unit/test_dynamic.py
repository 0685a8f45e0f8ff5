"""Dynamic evaluation against the equations in NumPy, whose gradients are written by hand."""

# B = batches, V = words, D = hidden size

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_seqlm.cache.dynamic import DynamicEvaluation
from lit_seqlm.errors import DivergedError, UserError

NUM_WORDS, SIZE = 7, 3
ARRAYS = dict[str, np.ndarray]


class Bigram(nn.Module):
    """logits = E[x] W^T + b in float64, with a table that no loss ever reads."""

    def __init__(self, tied: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.embedding_VD = drawn(NUM_WORDS, SIZE)
        self.output_VD = self.embedding_VD if tied else drawn(NUM_WORDS, SIZE)
        self.bias_V = drawn(NUM_WORDS)
        self.unused = drawn(4)

    def loss(self, words: np.ndarray) -> Tensor:
        tokens = torch.from_numpy(words)
        logits = self.embedding_VD[tokens[:-1]] @ self.output_VD.T + self.bias_V
        return nn.functional.cross_entropy(logits, tokens[1:])


def stream(num: int, length: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, NUM_WORDS, (num, length)))


TRAIN, TEST = stream(6, 9, seed=1), stream(12, 6, seed=2)


def options(**given: object) -> dict:
    return {
        "rule": "rms",
        "stat_scale": "mean",
        "lr": 0.02,
        "decay": 0.3,
        "floor": 1e-3,
        "segment": 5,
        "stats_batch": 1,
        "stats_max_batches": None,
    } | given


def evaluate(model: Bigram, evaluation: DynamicEvaluation, test: list[np.ndarray]) -> list[float]:
    """Score, count, then adapt."""
    losses = []
    for words in test:
        loss = model.loss(words)
        losses.append(loss.item())
        evaluation.adapt(loss)
    return losses


def run(model: Bigram, **given: object) -> tuple[DynamicEvaluation, list[float]]:
    evaluation = DynamicEvaluation(**options(**given))
    evaluation.prepare(model, (model.loss(words) for words in TRAIN))
    return evaluation, evaluate(model, evaluation, TEST)


def arrays(model: nn.Module) -> ARRAYS:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def by_hand(theta: ARRAYS, words: np.ndarray, tied: bool) -> tuple[float, ARRAYS]:
    """Mean cross-entropy and its gradient, one position at a time."""
    embedding_VD, bias_V = theta["embedding_VD"], theta["bias_V"]
    output_VD = embedding_VD if tied else theta["output_VD"]
    grads = {name: np.zeros_like(value) for name, value in theta.items()}
    total, num = 0.0, len(words) - 1
    for word, target in itertools.pairwise(words):
        logits_V = output_VD @ embedding_VD[word] + bias_V
        probs_V = np.exp(logits_V - logits_V.max())
        probs_V /= probs_V.sum()
        total -= math.log(probs_V[target])
        probs_V[target] -= 1.0
        grads["bias_V"] += probs_V / num
        grads["embedding_VD"][word] += output_VD.T @ probs_V / num
        output_grads = grads["embedding_VD" if tied else "output_VD"]
        output_grads += np.outer(probs_V, embedding_VD[word]) / num
    return total / num, grads


def reference(
    theta0: ARRAYS, tied: bool, rule: str, scale: str, lr: float, decay: float, floor: float
) -> tuple[list[float], ARRAYS]:
    """The equations, a scalar at a time where it costs nothing."""
    squares = {name: np.zeros_like(value) for name, value in theta0.items()}
    for words in TRAIN:
        for name, grad in by_hand(theta0, words, tied)[1].items():
            squares[name] += grad**2
    divisor = len(TRAIN) if scale == "mean" else 1
    statistic = {name: np.sqrt(square / divisor) for name, square in squares.items()}
    mean = sum(s.mean() for s in statistic.values()) / (len(statistic) if scale == "mean" else 1)
    theta, losses = {name: value.copy() for name, value in theta0.items()}, []
    for words in TEST:
        loss, grads = by_hand(theta, words, tied)
        losses.append(loss)
        for name in theta:
            for place in np.ndindex(theta[name].shape):
                s = statistic[name][place]
                r = min(s / mean, 1 / decay) if rule == "rms" else 1.0
                divided = s + floor if rule == "rms" else 1.0
                back = theta0[name][place] - theta[name][place]
                theta[name][place] += decay * r * back - lr * grads[name][place] / divided
    return losses, theta


@pytest.mark.parametrize("decay", [0.3, 0.6])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rule", "scale"), [("rms", "mean"), ("rms", "sum"), ("sgd", "mean")])
def test_losses_and_weights_are_those_of_the_equations(
    rule: str, scale: str, tied: bool, decay: float
) -> None:
    model = Bigram(tied)
    theta0 = arrays(model)
    evaluation, losses = run(model, rule=rule, stat_scale=scale, decay=decay)
    clipped = any((pull == 1).any() for pull in evaluation.pull.values())
    wanted, theta = reference(theta0, tied, rule, scale, lr=0.02, decay=decay, floor=1e-3)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)
    for name, value in arrays(model).items():
        np.testing.assert_allclose(value, theta[name], rtol=1e-10, atol=1e-12)
    assert not np.allclose(model.bias_V.detach(), theta0["bias_V"]), "it did move"
    if rule == "rms" and scale == "mean" and decay == 0.6:
        assert clipped, "some weight's r is cut at 1 / decay here"


def test_it_learns_what_the_stream_repeats() -> None:
    model = Bigram()
    evaluation = DynamicEvaluation(**options(lr=0.01, decay=0.01))
    evaluation.prepare(model, (model.loss(words) for words in TRAIN))
    losses = evaluate(model, evaluation, [TEST[0]] * 30)
    assert losses[-1] < 0.8 * losses[0]


def test_what_comes_later_changes_no_earlier_loss() -> None:
    model = Bigram()
    evaluation, losses = run(model)
    evaluation.reset()
    other = TEST[:7] + stream(5, 6, seed=9)
    changed = evaluate(model, evaluation, other)
    assert changed[:7] == losses[:7]
    assert changed[8:] != losses[8:]


def test_without_learning_rate_and_decay_it_is_the_static_model() -> None:
    model = Bigram()
    theta0 = arrays(model)
    static = [model.loss(words).item() for words in TEST]
    for rule in ("rms", "sgd"):
        _, losses = run(model, rule=rule, lr=0.0, decay=0.0)
        assert losses == static
        assert all(np.array_equal(theta0[name], value) for name, value in arrays(model).items())


@pytest.mark.parametrize("decay", [0.05, 0.5])
def test_the_two_scalings_agree_under_the_map(decay: float) -> None:
    """sum -> mean: lr and floor divide by sqrt(B_s), decay by the number of tensors."""
    model, root = Bigram(), math.sqrt(len(TRAIN))
    num_tensors = len(list(model.parameters()))
    summed, losses = run(
        model, stat_scale="sum", lr=0.02 * root, decay=decay * num_tensors, floor=1e-3 * root
    )
    ends = arrays(model)
    summed.restore()
    mean, wanted = run(model, lr=0.02, decay=decay, floor=1e-3)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)
    for name, value in arrays(model).items():
        np.testing.assert_allclose(ends[name], value, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(summed.pull[name], mean.pull[name], rtol=1e-12)
    assert any((pull == 1).any() for pull in mean.pull.values()) == (decay == 0.5), "clipped there"


def test_the_pull_never_overshoots() -> None:
    model = Bigram().float()
    for decay in (1e-3, 0.3, 0.7, 1.0, 40.0):
        evaluation = DynamicEvaluation(**options(decay=decay))
        evaluation.prepare(model, (model.loss(words) for words in TRAIN))
        for pull in evaluation.pull.values():
            assert pull.min() >= 0
            assert pull.max() <= 1


def test_weights_come_back_bit_for_bit() -> None:
    model = Bigram().float()
    theta0 = arrays(model)
    evaluation, first = run(model)
    assert not np.array_equal(theta0["bias_V"], arrays(model)["bias_V"])
    evaluation.reset()
    assert all(np.array_equal(theta0[name], value) for name, value in arrays(model).items())
    assert evaluate(model, evaluation, TEST) == first, "and nothing else was remembered"


def test_preparing_again_starts_from_the_trained_weights() -> None:
    model = Bigram()
    theta0 = arrays(model)
    evaluation, first = run(model)
    evaluation.prepare(model, (model.loss(words) for words in TRAIN))
    assert all(np.array_equal(theta0[name], value) for name, value in arrays(model).items())
    assert evaluate(model, evaluation, TEST) == first


def test_a_weight_without_gradient_is_pulled_back_and_else_left_alone() -> None:
    model = Bigram(tied=True)
    evaluation, _ = run(model)
    assert torch.equal(model.unused, evaluation.prior["unused"])
    names = dict(model.named_parameters())
    assert list(evaluation.prior) == list(names) == ["embedding_VD", "bias_V", "unused"]
    before = {name: weight.detach().clone() for name, weight in names.items()}
    evaluation.adapt(model.bias_V.square().sum())  # no gradient for the embedding in this segment
    prior_VD, pull_VD = evaluation.prior["embedding_VD"], evaluation.pull["embedding_VD"]
    moved_VD = before["embedding_VD"] + pull_VD * (prior_VD - before["embedding_VD"])
    torch.testing.assert_close(model.embedding_VD.detach(), moved_VD)
    assert not torch.equal(model.embedding_VD, before["embedding_VD"])


def test_a_frozen_weight_is_none_of_its_business() -> None:
    model = Bigram()
    model.bias_V.requires_grad_(False)
    before = model.bias_V.clone()
    evaluation, _ = run(model)
    assert torch.equal(model.bias_V, before)
    assert "bias_V" not in evaluation.prior


def test_only_as_many_batches_as_asked_for_are_computed() -> None:
    drawn = []

    def losses(model: Bigram) -> Iterator[Tensor]:
        for number, words in enumerate(TRAIN):
            drawn.append(number)
            yield model.loss(words)

    model = Bigram()
    two = DynamicEvaluation(**options(stats_max_batches=2))
    two.prepare(model, losses(model))
    assert drawn == [0, 1]
    cut = DynamicEvaluation(**options())
    cut.prepare(model, (model.loss(words) for words in TRAIN[:2]))
    assert torch.equal(two.statistic["bias_V"], cut.statistic["bias_V"])
    DynamicEvaluation(**options(rule="sgd")).prepare(model, losses(model))
    assert drawn == [0, 1], "plain gradient steps need no statistics"


def test_another_learning_rate_needs_no_new_statistics() -> None:
    model = Bigram()
    _, wanted = run(model, lr=0.05, decay=0.1)
    model = Bigram()
    evaluation, _ = run(model)
    evaluation.retune(lr=0.05, decay=0.1)
    assert evaluate(model, evaluation, TEST) == wanted


@pytest.mark.parametrize("rule", ["rms", "sgd"])
def test_a_killed_evaluation_goes_on_to_the_identical_result(rule: str, tmp_path) -> None:
    whole_model = Bigram().float()
    _, whole = run(whole_model, rule=rule)
    model = Bigram().float()
    evaluation = DynamicEvaluation(**options(rule=rule))
    evaluation.prepare(model, (model.loss(words) for words in TRAIN))
    before = evaluate(model, evaluation, TEST[:5])
    torch.save(evaluation.state_dict(), tmp_path / "state.pt")
    evaluate(model, evaluation, TEST[5:])  # what is saved does not change with the weights
    fresh = Bigram().float()
    resumed = DynamicEvaluation(**options(rule=rule))
    resumed.attach(fresh)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert before + evaluate(fresh, resumed, TEST[5:]) == whole
    assert all(np.array_equal(v, arrays(fresh)[n]) for n, v in arrays(whole_model).items())
    resumed.restore()
    assert all(np.array_equal(v, arrays(fresh)[n]) for n, v in arrays(Bigram().float()).items())


@pytest.mark.parametrize("spoil", ["missing", "shape", "other rule"])
def test_the_state_of_another_model_is_refused_and_nothing_changes(spoil: str) -> None:
    model = Bigram()
    state = run(model, rule="sgd" if spoil == "other rule" else "rms")[0].state_dict()
    if spoil == "missing":
        del state["weight.bias_V"]
    elif spoil == "shape":
        state["prior.bias_V"] = torch.zeros(3)
    fresh = Bigram()
    theta0 = arrays(fresh)
    evaluation = DynamicEvaluation(**options())
    evaluation.attach(fresh)
    with pytest.raises(UserError, match=r"does not fit.*resume=never"):
        evaluation.load_state_dict(state)
    assert all(np.array_equal(theta0[name], value) for name, value in arrays(fresh).items())


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights() -> None:
    model = Bigram()
    evaluation, _ = run(model)
    before = arrays(model)
    with pytest.raises(DivergedError, match=r"smaller cache\.lr \(0\.02 now\)"):
        evaluation.adapt(model.loss(TEST[0]) * float("nan"))
    assert all(np.array_equal(before[name], value) for name, value in arrays(model).items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rule": "rsm"}, "cache.rule=rsm: Did you mean rms"),
        ({"stat_scale": "median"}, "Accepted: mean, sum"),
        ({"lr": -1.0}, "cache.lr=-1.0: it must be at least 0"),
        ({"decay": -0.1}, "cache.decay=-0.1"),
        ({"rule": "sgd", "decay": 1.5}, "at most 1"),
        ({"floor": 0.0}, "cache.floor=0.0: it must be more than 0"),
        ({"segment": 0}, "cache.segment=0: it must be at least 1"),
        ({"stats_batch": 0}, "cache.stats_batch=0"),
        ({"stats_max_batches": 0}, "cache.stats_max_batches=0"),
    ],
)
def test_values_that_cannot_be_are_told(given: dict, said: str) -> None:
    with pytest.raises(UserError) as caught:
        DynamicEvaluation(**options(**given))
    assert said in str(caught.value)


def test_training_text_that_says_nothing_is_told() -> None:
    model = Bigram()
    with pytest.raises(UserError, match=r"cache\.stats_batch=1: the training text is too short"):
        DynamicEvaluation(**options()).prepare(model, [])
    with pytest.raises(UserError, match="mean gradient on the training text is 0"):
        DynamicEvaluation(**options()).prepare(model, [model.loss(TRAIN[0]) * 0.0])
    with pytest.raises(UserError, match="mean gradient on the training text is nan"):
        DynamicEvaluation(**options()).prepare(model, [model.loss(TRAIN[0]) * math.nan])
    with pytest.raises(UserError, match="none that can be trained"):
        DynamicEvaluation(**options()).prepare(nn.Linear(2, 2).requires_grad_(False), [])
