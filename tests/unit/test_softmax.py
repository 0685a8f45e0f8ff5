"""Output embeddings against independent computations."""

# N = positions, K = experts, D = hidden size, E = size of the output embedding, V = vocabulary

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.softmax import (
    AdaptiveSoftmax,
    DenseSoftmax,
    MixtureOfSoftmaxes,
    output_softmax,
)
from lit_seqlm.regularizer.adversarial import AdversarialRegularizer
from lit_seqlm.regularizer.none import NoRegularizer

V, E, D = 23, 6, 5
CUTOFFS = [5, 12]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def adversary(**changes: object) -> AdversarialRegularizer:
    options = {
        "radius": 0.1,
        "radius_mode": "relative",
        "direction": "exact",
        "gate": "positive_cosine",
        "norm_floor": 1e-8,
        "detach_weight_norm": True,
        "start_step": 0,
        "warmup_steps": 0,
        "stop_step": None,
        "adaptive_scope": "tail",
    }
    return AdversarialRegularizer(**{**options, **changes})  # type: ignore[arg-type]


def make(kind: str) -> nn.Module:
    """In float64, with no zero left that would hide a mistake."""
    embedding = nn.Embedding(V, E)
    layers = {
        "dense": lambda: DenseSoftmax(V, E),
        "dense_tied": lambda: DenseSoftmax(V, E, embedding),
        "adaptive": lambda: AdaptiveSoftmax(V, E, CUTOFFS),
        "adaptive_tied": lambda: AdaptiveSoftmax(V, E, CUTOFFS, embedding),
        "mos": lambda: MixtureOfSoftmaxes(V, E, 4, 0.0, embedding),
    }
    layer = layers[kind]().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer


KINDS = ["dense", "dense_tied", "adaptive", "adaptive_tied", "mos"]


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_sums_to_one(kind: str) -> None:
    log_prob_NV = make(kind).log_prob(3 * torch.randn(40, E, dtype=torch.float64))
    assert log_prob_NV.shape == (40, V)
    torch.testing.assert_close(
        log_prob_NV.logsumexp(-1), torch.zeros(40).double(), rtol=0, atol=1e-12
    )


def test_mixture_sums_to_one_in_single_precision_at_full_size() -> None:
    embedding = nn.Embedding(10_000, 32)
    mixture = MixtureOfSoftmaxes(10_000, 48, 15, 0.0, embedding)
    total_N = mixture.log_prob(5 * torch.randn(6, 48)).logsumexp(-1)
    assert total_N.abs().max().item() < 1e-5


@pytest.mark.parametrize("path", ["fused", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_nll_is_minus_log_prob_of_the_target(kind: str, path: str) -> None:
    layer = make(kind)
    hidden_BTD = torch.randn(4, 30, E, dtype=torch.float64)
    targets_BT = torch.randint(V, (4, 30))
    mask_BT = torch.rand(4, 30) < 0.7
    total, clean_nll_N = layer.nll(hidden_BTD, targets_BT, mask_BT, NoRegularizer(), path=path)
    expected_N = -layer.log_prob(hidden_BTD[mask_BT]).gather(1, targets_BT[mask_BT][:, None])[:, 0]
    torch.testing.assert_close(clean_nll_N, expected_N.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(total, expected_N.sum(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", ["fused", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_nll_is_that_of_log_prob(kind: str, path: str) -> None:
    layer = make(kind)
    hidden_BTD = torch.randn(2, 20, E, dtype=torch.float64, requires_grad=True)
    targets_BT = torch.randint(V, (2, 20))
    inputs = [hidden_BTD, *layer.parameters()]
    total, _ = layer.nll(hidden_BTD, targets_BT, None, NoRegularizer(), path=path)
    log_prob = layer.log_prob(hidden_BTD.flatten(0, 1)).gather(1, targets_BT.flatten()[:, None])
    ours = torch.autograd.grad(total, inputs)
    expected = torch.autograd.grad(-log_prob.sum(), inputs)
    for our_grad, their_grad in zip(ours, expected, strict=True):
        torch.testing.assert_close(our_grad, their_grad, rtol=0, atol=1e-11)


def test_mixture_equals_a_numpy_sum_of_probabilities() -> None:
    mixture = make("mos")
    hidden = torch.randn(7, E, dtype=torch.float64)
    w, b = mixture.weight.detach().numpy(), mixture.bias.detach().numpy()
    latent = np.tanh(
        hidden.numpy() @ mixture.latent.weight.detach().numpy().T
        + mixture.latent.bias.detach().numpy()
    )
    scores = np.exp(hidden.numpy() @ mixture.prior.weight.detach().numpy().T)
    expected = np.zeros((7, V))
    for expert in range(4):
        odds = np.exp(latent[:, expert * E : (expert + 1) * E] @ w.T + b)
        expected += (scores[:, expert] / scores.sum(1))[:, None] * odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(
        mixture.log_prob(hidden).detach().exp().numpy(), expected, atol=1e-13
    )


def test_adaptive_equals_torchs_own() -> None:
    """`nn.AdaptiveLogSoftmaxWithLoss` with div_value 1 and identities for its projections."""
    ours = make("adaptive")
    theirs = nn.AdaptiveLogSoftmaxWithLoss(E, V, CUTOFFS, div_value=1.0, head_bias=True).double()
    bounds = [*CUTOFFS, V]
    with torch.no_grad():
        ours.bias[CUTOFFS[0] :] = 0  # torch's tails have no bias
        theirs.head.weight.copy_(torch.cat([ours.weight[: CUTOFFS[0]], ours.cluster_weight]))
        theirs.head.bias.copy_(torch.cat([ours.bias[: CUTOFFS[0]], ours.cluster_bias]))
        for tail, (low, high) in zip(theirs.tail, pairwise(bounds), strict=True):
            tail[0].weight.copy_(torch.eye(E))
            tail[1].weight.copy_(ours.weight[low:high])
    hidden, targets = torch.randn(50, E, dtype=torch.float64), torch.randint(V, (50,))
    torch.testing.assert_close(ours.log_prob(hidden), theirs.log_prob(hidden), rtol=0, atol=1e-12)
    total, _ = ours.nll(hidden[None], targets[None], None, NoRegularizer())
    assert total.item() == pytest.approx(theirs(hidden, targets).loss.item() * 50, abs=1e-10)


def perturbed_mixture_loss(
    latent_NKE: Tensor,
    log_prior_NK: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets_N: Tensor,
    radius: float,
) -> Tensor:
    """Every position and expert with its own copy of W, whose target row is moved by a constant."""
    total = latent_NKE.new_zeros(())
    for position, target in enumerate(targets_N.tolist()):
        parts = []
        for expert in range(latent_NKE.size(1)):
            h, w_y = latent_NKE[position, expert], weight[target]
            gate = float(h @ w_y > 0)
            move = (-gate * radius * w_y.norm() * h / h.norm()).detach()
            rows = torch.zeros_like(weight).index_put((torch.tensor(target),), move)
            log_prob = ((weight + rows) @ h + bias).log_softmax(-1)[target]
            parts.append(log_prior_NK[position, expert] + log_prob)
        total = total - torch.stack(parts).logsumexp(0)
    return total


@pytest.mark.parametrize("path", ["fused", "plain"])
def test_every_expert_has_its_own_margin(path: str) -> None:
    mixture = make("mos")
    hidden = torch.randn(1, 12, E, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(4, (1, 12))  # duplicates
    inputs = [hidden, *mixture.parameters()]
    total, clean_nll_N = mixture.nll(hidden, targets, None, adversary(norm_floor=0.0), path=path)
    latent, log_prior = mixture.experts(hidden)
    expected = perturbed_mixture_loss(
        latent[0], log_prior[0], mixture.weight, mixture.bias, targets[0], 0.1
    )
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-11)
    ours, theirs = torch.autograd.grad(total, inputs), torch.autograd.grad(expected, inputs)
    for our_grad, their_grad in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our_grad, their_grad, rtol=0, atol=1e-11)
    expected_clean_N = -mixture.log_prob(hidden[0]).gather(1, targets.T)[:, 0].detach()
    torch.testing.assert_close(clean_nll_N, expected_clean_N, rtol=0, atol=1e-12)
    assert total > clean_nll_N.sum()


@pytest.mark.parametrize(("scope", "head_is_margined"), [("tail", False), ("both", True)])
def test_adaptive_margins_the_word_in_its_cluster_and_the_cluster_on_request(
    scope: str, head_is_margined: bool
) -> None:
    layer = make("adaptive")
    hidden = torch.randn(1, 60, E, dtype=torch.float64)
    targets = torch.randint(V, (1, 60))
    regularizer = adversary(adaptive_scope=scope, gate="none")
    total, _ = layer.nll(hidden, targets, None, regularizer)
    expected = 0.0
    for h, target in zip(hidden[0], targets[0].tolist(), strict=True):
        head_weight = torch.cat([layer.weight[: CUTOFFS[0]], layer.cluster_weight])
        head = head_weight @ h + torch.cat([layer.bias[: CUTOFFS[0]], layer.cluster_bias])
        cluster = sum(target >= cut for cut in CUTOFFS)
        entry = CUTOFFS[0] + cluster - 1 if cluster else target
        if head_is_margined or not cluster:
            head = head.index_add(
                0, torch.tensor(entry), -0.1 * head_weight[entry].norm()[None] * h.norm()
            )
        expected -= head.log_softmax(-1)[entry].item()
        if cluster:
            low, high = [*CUTOFFS, V][cluster - 1 : cluster + 1]
            tail = layer.weight[low:high] @ h + layer.bias[low:high]
            shift = -0.1 * layer.weight[target].norm()[None] * h.norm()
            expected -= (
                tail.index_add(0, torch.tensor(target - low), shift)
                .log_softmax(-1)[target - low]
                .item()
            )
    assert total.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_ignores_the_regularizer(kind: str) -> None:
    layer, targets = make(kind), torch.randint(V, (2, 9))
    hidden = torch.randn(2, 9, E, dtype=torch.float64)
    plain, _ = layer.nll(hidden, targets, None, NoRegularizer())
    regularized, _ = layer.nll(hidden, targets, None, adversary().eval())
    assert plain.item() == regularized.item()


@pytest.mark.parametrize("cutoffs", [None, CUTOFFS])
def test_tied_weight_is_the_embeddings(cutoffs: list[int] | None) -> None:
    embedding = nn.Embedding(V, E)
    assert output_softmax(embedding, "tied", cutoffs).weight is embedding.weight
    untied = output_softmax(embedding, "untied", cutoffs)
    assert untied.weight is not embedding.weight
    assert untied.weight.shape == embedding.weight.shape
    with pytest.raises(UserError, match="tied or untied"):
        output_softmax(embedding, "bound", cutoffs)


def test_cutoffs_outside_the_vocabulary_are_refused() -> None:
    for cutoffs in ([5, 5], [12, 5], [0], [V]):
        with pytest.raises(ValueError, match="must rise strictly"):
            AdaptiveSoftmax(V, E, cutoffs)


def test_latent_dropout_is_locked_over_time() -> None:
    mixture = MixtureOfSoftmaxes(V, D, 3, 0.5, nn.Embedding(V, E))
    latent_BTKE, _ = mixture.experts(torch.randn(2, 8, D))
    assert ((latent_BTKE == 0).all(1) | (latent_BTKE != 0).all(1)).all()
    assert (latent_BTKE == 0).any()
