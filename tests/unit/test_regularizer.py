"""The adversarial margin against what it stands for: perturbed copies of the output embedding, loops, random search."""

# N = positions, K = experts, D = hidden size, V = vocabulary, M = N * K

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.softmax import AdaptiveSoftmax, DenseSoftmax, MixtureOfSoftmaxes
from lit_seqlm.regularizer.adversarial import AdversarialRegularizer
from lit_seqlm.regularizer.none import NoRegularizer

V, D, N, RADIUS = 19, 6, 14, 0.3
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def adversary(**changes: Any) -> AdversarialRegularizer:
    """Without a norm floor, which alone would part the two forms by 1e-9."""
    options: dict[str, Any] = {
        "radius": RADIUS, "radius_mode": "relative", "direction": "exact", "gate": "positive_cosine",
        "norm_floor": 0.0, "detach_weight_norm": True, "start_step": 0, "warmup_steps": 0,
        "stop_step": None, "adaptive_scope": "tail",
    }  # fmt: skip
    return AdversarialRegularizer(**(options | changes))


def some_targets() -> Tensor:
    """Few words, so that most occur several times."""
    return torch.randint(4, (1, N))


def filled(layer: nn.Module) -> Any:
    """In float64, with no zero parameter that would hide a mistake."""
    for parameter in layer.double().parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer


def worst_change(hidden_MD: Tensor, rows_MD: Tensor, radius: float = RADIUS) -> Tensor:
    """d = -epsilon h / |h| where h and w point the same way, a constant."""
    epsilon_M1 = radius * rows_MD.norm(dim=-1, keepdim=True)
    gate_M1 = ((hidden_MD * rows_MD).sum(-1, keepdim=True) > 0).double()
    return (-gate_M1 * epsilon_M1 * hidden_MD / hidden_MD.norm(dim=-1, keepdim=True)).detach()


def perturbed_log_prob(
    hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_M: Tensor
) -> Tensor:
    """log p of the targets, every position with its own perturbed copy of W: M x V x D numbers."""
    change_MD = worst_change(hidden_MD, weight_VD[targets_M])
    position_M = torch.arange(len(targets_M))
    copies_MVD = weight_VD.expand(len(targets_M), *weight_VD.shape)
    copies_MVD = copies_MVD.index_put((position_M, targets_M), change_MD, accumulate=True)
    logits_MV = torch.einsum("mvd,md->mv", copies_MVD, hidden_MD) + bias_V
    return logits_MV.log_softmax(-1)[position_M, targets_M]


def assert_same(total: Tensor, expected: Tensor, leaves: list[Tensor], **tolerance: float) -> None:
    tolerance = tolerance or EXACT
    torch.testing.assert_close(total, expected, **tolerance)
    ours = torch.autograd.grad(total, leaves, retain_graph=True)
    theirs = torch.autograd.grad(expected, leaves, retain_graph=True)
    torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("path", ["fused", "plain"])
@pytest.mark.parametrize("tied", [False, True])
def test_margin_equals_a_perturbed_copy_of_the_weight(path: str, tied: bool) -> None:
    embedding = filled(nn.Embedding(V, D))
    softmax = filled(DenseSoftmax(V, D, embedding if tied else None))
    tokens, targets = torch.randint(V, (1, N)), some_targets()
    hidden = torch.tanh(embedding(tokens))  # tied, W is reached through the input as well
    total, _ = softmax.nll(hidden, targets, None, adversary(), path=path)
    log_prob = perturbed_log_prob(hidden[0], softmax.weight, softmax.bias, targets[0])
    assert_same(total, -log_prob.sum(), [embedding.weight, softmax.weight, softmax.bias, hidden])


@pytest.mark.parametrize("path", ["fused", "plain"])
def test_margin_of_a_mixture_equals_a_perturbed_copy_for_every_expert(path: str) -> None:
    embedding = filled(nn.Embedding(V, D))
    mixture = filled(MixtureOfSoftmaxes(V, D, 3, 0.0, embedding))
    targets = some_targets()
    hidden = torch.tanh(embedding(torch.randint(V, (1, N))))
    total, _ = mixture.nll(hidden, targets, None, adversary(), path=path)
    latent, log_prior = mixture.experts(hidden)
    log_prob = perturbed_log_prob(
        latent[0].flatten(0, 1), mixture.weight, mixture.bias, targets[0].repeat_interleave(3)
    )
    expected = -torch.logsumexp(log_prior[0] + log_prob.view(N, 3), dim=1).sum()
    assert_same(total, expected, [hidden, *mixture.parameters()])


def test_no_random_change_of_the_same_size_is_worse() -> None:
    softmax, hidden = filled(DenseSoftmax(V, D)), torch.randn(N, D, dtype=torch.float64)
    targets = some_targets()
    margin = adversary(gate="none").target_margin(hidden, softmax.weight[targets[0]], targets[0])
    logits = F.linear(hidden, softmax.weight, softmax.bias).detach()
    at_target = F.one_hot(targets[0], V)
    closed = F.cross_entropy(logits - at_target * margin[:, None], targets[0], reduction="none")
    direction = F.normalize(torch.randn(10_000, N, D, dtype=torch.float64), dim=-1)
    epsilon = RADIUS * softmax.weight[targets[0]].norm(dim=-1, keepdim=True)
    shift = (direction * epsilon * hidden).sum(-1)  # what a change of the row does to the logit
    others = torch.logsumexp(logits.masked_fill(at_target.bool(), -torch.inf), dim=-1)
    changed = F.softplus(others - logits.gather(1, targets.T)[:, 0] - shift)
    assert (changed <= closed).all()
    assert (changed.amax(0) > 0.95 * closed).all(), "the search should come close"


def test_margin_has_no_gradient_for_the_weight_while_its_norm_is_detached() -> None:
    weight = torch.randn(V, D, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(N, D, dtype=torch.float64)
    targets = some_targets()[0]
    for direction in ("exact", "last_write", "random", "all_words"):
        margin = adversary(direction=direction, gate="none").target_margin(
            hidden, weight[targets], targets
        )
        assert not margin.requires_grad, direction
    free = adversary(gate="none", detach_weight_norm=False)
    margin = free.target_margin(hidden, weight[targets], targets)
    (grad,) = torch.autograd.grad(margin.sum(), weight)
    rows = weight.detach()[targets]
    pull = RADIUS * hidden.norm(dim=-1, keepdim=True) * F.normalize(rows, dim=-1)
    torch.testing.assert_close(grad, torch.zeros_like(grad).index_add(0, targets, pull), **EXACT)


@pytest.mark.parametrize("direction", ["exact", "last_write", "random", "all_words"])
@pytest.mark.parametrize("path", ["fused", "plain"])
def test_radius_zero_is_cross_entropy_bit_for_bit(direction: str, path: str) -> None:
    softmax, targets = DenseSoftmax(V, D), some_targets()
    hidden = torch.randn(1, N, D, requires_grad=True)
    leaves = [hidden, *softmax.parameters()]
    runs = [
        softmax.nll(hidden, targets, None, regularizer, path=path)
        for regularizer in (NoRegularizer(), adversary(radius=0.0, direction=direction))
    ]
    assert torch.equal(runs[0][0], runs[1][0])
    grads = [torch.autograd.grad(total, leaves) for total, _ in runs]
    assert all(torch.equal(plain, other) for plain, other in zip(*grads, strict=True))
    if path == "plain":
        logits = hidden[0] @ softmax.weight.T + softmax.bias
        nll = F.cross_entropy(logits, targets[0], reduction="none")
        assert torch.equal(runs[1][1], nll)
        assert torch.equal(runs[1][0], nll.double().sum())


@pytest.mark.parametrize("direction", ["exact", "random"])
def test_no_margin_where_hidden_and_row_do_not_point_the_same_way(direction: str) -> None:
    rows = torch.tensor([[1.0, 0.0]] * 3)
    hidden = torch.tensor([[2.0, 5.0], [0.0, 1.0], [-1.0, 3.0]])
    targets = torch.arange(3)
    margin = adversary(direction=direction).target_margin(hidden, rows, targets)
    assert margin[0] != 0
    assert margin[1:].tolist() == [0.0, 0.0]
    assert (
        adversary(gate="none", direction=direction).target_margin(hidden, rows, targets) != 0
    ).all()


@pytest.mark.parametrize("direction", ["exact", "last_write", "random", "all_words"])
def test_evaluation_ignores_the_regularizer(direction: str) -> None:
    softmax, targets = filled(DenseSoftmax(V, D)), some_targets()
    hidden = torch.randn(1, N, D, dtype=torch.float64)
    regularizer = adversary(direction=direction).eval()
    assert regularizer.target_margin(hidden[0], hidden[0], targets[0]).tolist() == [0.0] * N
    total, _ = softmax.nll(hidden, targets, None, regularizer)
    assert torch.equal(total, softmax.nll(hidden, targets, None, NoRegularizer())[0])
    noisy = softmax.nll(hidden, targets, None, regularizer.train())[0]
    assert noisy != total


@pytest.mark.parametrize("num_experts", [1, 3])
def test_last_write_equals_an_assignment_loop(num_experts: int) -> None:
    targets = some_targets()[0].repeat_interleave(num_experts)
    hidden = torch.randn(len(targets), D, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(V, D, dtype=torch.float64)
    change = worst_change(hidden, weight[targets])
    noise = torch.zeros(V, D, dtype=torch.float64)
    for position, target in enumerate(targets.tolist()):
        noise[target] = change[position]
    expected = -(noise[targets] * hidden).sum(-1)
    margin = adversary(direction="last_write").target_margin(hidden, weight[targets], targets)
    torch.testing.assert_close(margin, expected, **EXACT)
    ours, theirs = (torch.autograd.grad(value.sum(), hidden)[0] for value in (margin, expected))
    torch.testing.assert_close(ours, theirs, **EXACT)
    exact = adversary().target_margin(hidden, weight[targets], targets)
    assert (margin <= exact + 1e-12)[change.norm(dim=-1) > 0].all(), (
        "nothing is worse than one's own direction"
    )


@pytest.mark.parametrize("path", ["fused", "plain"])
@pytest.mark.parametrize("radius_mode", ["relative", "absolute"])
def test_all_words_raises_every_other_word(path: str, radius_mode: str) -> None:
    softmax, targets = filled(DenseSoftmax(V, D)), some_targets()
    hidden = torch.randn(1, N, D, dtype=torch.float64, requires_grad=True)
    regularizer = adversary(direction="all_words", gate="none", radius_mode=radius_mode)
    total, _ = softmax.nll(hidden, targets, None, regularizer, path=path)
    epsilon = RADIUS * softmax.weight.detach().norm(dim=-1)
    if radius_mode == "absolute":
        epsilon = torch.full_like(epsilon, RADIUS)
    sign = 1 - 2 * F.one_hot(targets[0], V)
    logits = F.linear(hidden[0], softmax.weight, softmax.bias)
    raised = logits + sign * epsilon * hidden[0].norm(dim=-1, keepdim=True)
    expected = F.cross_entropy(raised, targets[0], reduction="sum")
    assert_same(total, expected, [hidden, softmax.weight, softmax.bias])


def test_random_changes_have_the_length_of_the_worst_one() -> None:
    rows, hidden = torch.randn(1, D).repeat(20_000, 1), torch.randn(1, D).repeat(20_000, 1)
    regularizer = adversary(direction="random", gate="none")
    margin = regularizer.target_margin(hidden, rows, torch.zeros(20_000, dtype=torch.long))
    most = RADIUS * rows[0].norm() * hidden[0].norm()
    assert margin.abs().max() <= most * 1.00001
    # The square of one coordinate of a uniform direction has mean 1 / D.
    assert float(margin.square().mean() / most.square()) == pytest.approx(1 / D, rel=0.05)
    line = regularizer.target_margin(
        hidden[:, :1], rows[:, :1], torch.zeros(20_000, dtype=torch.long)
    )
    length = RADIUS * rows[0, 0].abs() * hidden[0, 0].abs()
    torch.testing.assert_close(line.abs(), length.expand_as(line))
    assert 0.45 < float((line > 0).float().mean()) < 0.55


def test_absolute_radius_is_the_same_for_every_word() -> None:
    weight, targets = torch.randn(V, D, dtype=torch.float64), some_targets()[0]
    hidden = torch.randn(N, D, dtype=torch.float64)
    regularizer = adversary(radius_mode="absolute", gate="none")
    margin = regularizer.target_margin(hidden, weight[targets], targets)
    torch.testing.assert_close(margin, RADIUS * hidden.norm(dim=-1), **EXACT)


def test_norm_floor_keeps_gradients_of_zero_vectors_finite() -> None:
    hidden = torch.zeros(2, D, requires_grad=True)
    rows = torch.zeros(2, D)
    for direction in ("exact", "last_write", "all_words"):
        regularizer = adversary(norm_floor=1e-8, gate="none", direction=direction)
        margin = regularizer.target_margin(hidden, rows, torch.tensor([0, 0]))
        (grad,) = torch.autograd.grad(margin.sum(), hidden)
        assert torch.isfinite(grad).all(), direction


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0), (9, 0), (10, 0.25), (11, 0.5), (13, 1), (29, 1), (30, 0), (99, 0)]
)
def test_schedule_starts_ramps_and_stops(step: int, share: float) -> None:
    regularizer = adversary(start_step=10, warmup_steps=4, stop_step=30)
    regularizer.set_step(step)
    assert regularizer.current_radius == pytest.approx(RADIUS * share)
    hidden, rows, targets = torch.ones(1, D), torch.ones(1, D), torch.zeros(1, dtype=torch.long)
    margin = regularizer.target_margin(hidden, rows, targets)
    assert float(margin) == pytest.approx(RADIUS * share * D)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("direction", "worst", "exact, last_write, random, all_words"),
        ("radius_mode", "cosine", "relative, absolute"),
        ("gate", "off", "positive_cosine, none"),
        ("adaptive_scope", "head", "tail, both"),
        ("radius", -0.1, "zero or more"),
    ],
)
def test_a_value_that_is_not_a_choice_is_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        adversary(**{option: value})
    assert f"regularizer.{option}={value}" in str(error.value)


def adaptive_loss(softmax: AdaptiveSoftmax, hidden: Tensor, targets: Tensor, scope: str) -> Tensor:
    """Position by position: the head's entry, then the word in its cluster, each with its row changed."""
    cutoffs, total = softmax.bounds[1:-1], torch.zeros((), dtype=torch.float64)
    head_weight = torch.cat([softmax.weight[: cutoffs[0]], softmax.cluster_weight])
    head_bias = torch.cat([softmax.bias[: cutoffs[0]], softmax.cluster_bias])
    for h, target in zip(hidden[0], targets[0].tolist(), strict=True):
        cluster = sum(target >= cutoff for cutoff in cutoffs)
        entry = torch.tensor([cutoffs[0] + cluster - 1 if cluster else target])
        if scope == "both" or not cluster:
            total = total - perturbed_log_prob(h[None], head_weight, head_bias, entry)[0]
        else:
            total = total - F.linear(h, head_weight, head_bias).log_softmax(-1)[entry[0]]
        if cluster:
            words = slice(*softmax.bounds[cluster : cluster + 2])
            word = torch.tensor([target - words.start])
            tail = softmax.weight[words], softmax.bias[words]
            total = total - perturbed_log_prob(h[None], *tail, word)[0]
    return total


@pytest.mark.parametrize("scope", ["tail", "both"])
@pytest.mark.parametrize("path", ["fused", "plain"])
def test_adaptive_softmax_equals_a_loop_over_positions(scope: str, path: str) -> None:
    softmax = filled(AdaptiveSoftmax(V, D, [5, 11]))
    hidden = torch.randn(1, 40, D, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(V, (1, 40))
    total, _ = softmax.nll(hidden, targets, None, adversary(adaptive_scope=scope), path=path)
    expected = adaptive_loss(softmax, hidden, targets, scope)
    assert_same(total, expected, [hidden, *softmax.parameters()], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("path", ["fused", "plain"])
def test_label_smoothing_sees_the_margin_in_both_terms(path: str) -> None:
    softmax, targets = filled(DenseSoftmax(V, D)), some_targets()
    hidden = torch.randn(1, N, D, dtype=torch.float64, requires_grad=True)
    total, clean = softmax.nll(hidden, targets, None, adversary(), 0.2, path)
    logits = F.linear(hidden[0], softmax.weight, softmax.bias)
    change = worst_change(hidden[0], softmax.weight[targets[0]])
    shifted = logits + F.one_hot(targets[0], V) * (change * hidden[0]).sum(-1, keepdim=True)
    expected = F.cross_entropy(shifted, targets[0], reduction="sum", label_smoothing=0.2)
    assert_same(total, expected, [hidden, softmax.weight, softmax.bias])
    torch.testing.assert_close(
        clean, F.cross_entropy(logits, targets[0], reduction="none"), **EXACT
    )


@pytest.mark.parametrize("direction", ["exact", "last_write", "all_words"])
def test_works_under_bf16_autocast(direction: str) -> None:
    softmax, targets = DenseSoftmax(V, D), some_targets()
    hidden = torch.randn(1, N, D, requires_grad=True)
    leaves = [hidden, *softmax.parameters()]
    regularizer = adversary(direction=direction)
    exact, _ = softmax.nll(hidden, targets, None, regularizer)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = softmax.nll(hidden, targets, None, regularizer)
        margin = regularizer.target_margin(
            hidden[0].bfloat16(), softmax.weight[targets[0]], targets[0]
        )
    assert margin.dtype == torch.float32
    torch.testing.assert_close(total, exact, rtol=0.02, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(total, leaves), torch.autograd.grad(exact, leaves), strict=True
    ):
        assert (ours - theirs).norm() <= 0.03 * theirs.norm()
