"""Heads of residues, pairs and chains: padding, order, sizes, and formulas written by hand."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from lit_seqlm.config import build
from lit_seqlm.data.targets import plain_target
from lit_seqlm.errors import UserError
from lit_seqlm.head.base import Head
from lit_seqlm.head.contact_megatron import ContactMegatron
from lit_seqlm.head.contact_plm_tape import ContactPlmTape
from lit_seqlm.head.contact_tape2019 import ContactTape2019
from lit_seqlm.head.contact_tape_torch import ContactTapeTorch
from lit_seqlm.head.linear import LinearHead
from lit_seqlm.head.prediction import Prediction
from lit_seqlm.head.residue_linear import ResidueLinear
from lit_seqlm.head.residue_megatron import ResidueMegatron
from lit_seqlm.head.residue_netsurfp import ResidueNetSurfP
from lit_seqlm.head.residue_tape2019 import ResidueTape2019
from lit_seqlm.head.residue_tape_torch import ResidueTapeTorch
from lit_seqlm.head.sequence_megatron import SequenceMegatron
from lit_seqlm.head.sequence_plm_tape import SequencePlmTape
from lit_seqlm.head.sequence_tape2019 import SequenceTape2019
from lit_seqlm.head.sequence_tape_torch import SequenceTapeTorch
from lit_seqlm.model.layers.attention_pooling import AttentionPooling
from lit_seqlm.model.layers.masked_batch_norm import MaskedBatchNorm
from lit_seqlm.model.layers.pairs import ProductDifference
from lit_seqlm.model.property import PropertyModel
from lit_seqlm.model.site_model import SiteModel
from lit_seqlm.objective.classes import SiteClasses
from lit_seqlm.objective.regression import Regression
from lit_seqlm.task.probe import Probe

CONF = Path(__file__).parents[2] / "conf" / "head"
SMALL: dict[str, dict[str, Any]] = {  # in place of sizes that take long
    "contact_plm_tape": {"num_blocks": 2, "num_channels": 6},
    "contact_tape2019": {"num_blocks": 2, "num_channels": 6},
    "residue_netsurfp": {"lstm_size": 5, "num_filters": 3},
}
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem.split("_")[0] in
               ("residue", "contact", "sequence"))  # fmt: skip
SITES = {"residue": "residue", "contact": "pair", "sequence": "chain"}
D, LENGTHS = 8, (9, 6, 1)
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}


def site_of(name: str) -> str:
    return SITES[name.split("_")[0]]


def made(name: str, dropout: bool = False, small: bool = True, **given: Any) -> nn.Module:
    node = OmegaConf.load(CONF / f"{name}.yaml")
    for key, value in (SMALL.get(name, {}) if small else {}).items():
        node[key] = value
    for key, value in ({} if dropout else NO_DROPOUT).items():
        if key in node:
            node[key] = value
    sizes = {"hidden_size": D, "num_outputs": 2 if site_of(name) == "pair" else 3}
    torch.manual_seed(0)
    return build(node, **(sizes | given)).double()


def batch(lengths: tuple[int, ...] = LENGTHS, noise: float = 1e3) -> tuple[Tensor, Tensor]:
    """Hidden states whose padding is loud."""
    torch.manual_seed(1)
    hidden = torch.randn(len(lengths), max(lengths), D, dtype=torch.float64)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.where(valid[..., None], hidden, noise * (1 + hidden)), valid


def answer(head: nn.Module, hidden: Tensor, valid: Tensor | None = None) -> Tensor:
    found = head(hidden, valid)
    return found.mean_BK if isinstance(found, Prediction) else found


def of_row(name: str, logits: Tensor, row: int, length: int) -> Tensor:
    """The part of a batch's answer that is this sequence's."""
    cut = {
        "residue": np.s_[row, :length],
        "pair": np.s_[row, :length, :length],
        "chain": np.s_[row],
    }
    return logits[cut[site_of(name)]]


# -- all of them


def test_the_options_are_those_of_the_paper() -> None:
    generations = ("tape2019", "tape_torch", "megatron")
    assert set(NAMES) == (
        {f"{site}_{name}" for site in SITES for name in generations}
        | {"residue_linear", "residue_netsurfp", "contact_plm_tape", "sequence_plm_tape"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_sites(name: str) -> None:
    head, (hidden, valid) = made(name), batch()
    shape = {"residue": (3, 9, 3), "pair": (3, 9, 9, 2), "chain": (3, 3)}[site_of(name)]
    assert answer(head, hidden, valid).shape == shape
    assert isinstance(head, Head) if site_of(name) == "chain" else head.site == site_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_several_lengths_equals_one_by_one(name: str) -> None:
    head, (hidden, valid) = made(name).eval(), batch()
    together = answer(head, hidden, valid)
    for row, length in enumerate(LENGTHS):
        alone = answer(head, hidden[row : row + 1, :length])
        torch.testing.assert_close(
            of_row(name, together, row, length), alone[0], rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_not_seen_in_training_either(name: str) -> None:
    """More padding, and louder: the same answers, gradients and statistics of batch norms."""
    kept = []
    for extra, noise in ((0, 1.0), (5, -1e4)):
        head, (hidden, valid) = made(name).train(), batch(noise=noise)
        hidden, valid = F.pad(hidden, (0, 0, 0, extra), value=noise), F.pad(valid, (0, extra))
        logits = answer(head, hidden, valid)
        parts = [of_row(name, logits, row, length) for row, length in enumerate(LENGTHS)]
        sum(part.square().sum() for part in parts).backward()
        gradients = [parameter.grad for parameter in head.parameters()]
        kept.append((parts, gradients, dict(head.named_buffers())))
    for first, second in zip(kept[0], kept[1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_permuted_batch_permutes_the_answers(name: str) -> None:
    head, (hidden, valid) = made(name), batch()
    order = torch.tensor([2, 0, 1])
    for mode in (True, False):
        first = answer(copy.deepcopy(head).train(mode), hidden, valid)
        second = answer(copy.deepcopy(head).train(mode), hidden[order], valid[order])
        for place, row in enumerate(order.tolist()):
            length = LENGTHS[row]
            torch.testing.assert_close(
                of_row(name, second, place, length), of_row(name, first, row, length)
            )


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_padding_has_no_gradient(name: str) -> None:
    head, (hidden, valid) = made(name, dropout=name == "contact_tape_torch").train(), batch()
    hidden.requires_grad_()
    logits = answer(head, hidden, valid)
    weights = torch.randn_like(logits)
    parts = [of_row(name, logits * weights, row, length) for row, length in enumerate(LENGTHS)]
    sum(part.sum() for part in parts).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert (parameter.grad != 0).any(), key
    assert hidden.grad is not None
    assert (hidden.grad[0] != 0).any()
    assert (hidden.grad[~valid] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [True, False])
def test_one_token_alone(name: str, mode: bool) -> None:
    """Too few for a variance, enough for an answer."""
    head = made(name, dropout=True).train(mode)
    logits = answer(head, torch.randn(1, 1, D, dtype=torch.float64))
    assert logits.isfinite().all()
    logits.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_heads_work_under_autocast(name: str) -> None:
    head, (hidden, valid) = made(name).float().train(), batch()
    for states in (hidden.float(), hidden.bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = answer(head, states, valid)
        logits[..., 0].float().sum().backward()
        assert logits.isfinite().all()
        if site_of(name) != "residue":
            assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_a_state_dict(name: str) -> None:
    head, (hidden, valid) = made(name).eval(), batch()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    other = made(name).eval()
    other.load_state_dict(head.state_dict(), strict=True)
    torch.testing.assert_close(answer(other, hidden, valid), answer(head, hidden, valid))


@pytest.mark.parametrize("name", [n for n in NAMES if site_of(n) == "pair"])
@pytest.mark.parametrize("mode", [True, False])
def test_pairs_are_symmetric_to_the_last_bit(name: str, mode: bool) -> None:
    head, (hidden, valid) = made(name, dropout=True).float().train(mode), batch()
    logits = answer(head, hidden.float(), valid)
    assert torch.equal(logits, logits.transpose(1, 2))


@pytest.mark.parametrize("name", [n for n in NAMES if site_of(n) == "pair"])
def test_pairs_have_two_classes(name: str) -> None:
    with pytest.raises(
        UserError, match="tells contacts from what is apart, 2 classes; the data has 3"
    ):
        made(name, num_outputs=3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SMALL])
def test_a_head_learns_eight_sequences(name: str) -> None:
    """Labels that its own sites can tell apart; deep heads would take long."""
    torch.manual_seed(2)
    hidden, valid = batch((7, 6, 5, 4, 7, 6, 5, 4))
    head = made(name).float().train()
    hidden = hidden.float()
    signal = (hidden[..., 0] > 0).long()
    sites = {
        "residue": torch.where(valid, signal, -1),
        "pair": torch.where(valid[:, :, None] & valid[:, None],
                            (hidden @ hidden.transpose(1, 2) > 0).long(), -1),
        "chain": signal[:, 0],
    }[site_of(name)]  # fmt: skip
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    first = None
    for _ in range(100):
        loss = SiteClasses()(answer(head, hidden, valid), sites)
        first = loss.mean.detach() if first is None else first
        optimizer.zero_grad()
        loss.mean.backward()
        optimizer.step()
    assert float(loss.mean.detach()) < 0.5 * float(first)


# -- sizes, by formula


def dense(num_inputs: int, num_outputs: int) -> int:
    return num_inputs * num_outputs + num_outputs


H, C = 768, 3
COUNTS: dict[str, int] = {
    "residue_linear": dense(H, C),
    "residue_megatron": dense(H, H) + dense(H, C),
    "residue_tape2019": 2 * H + dense(5 * H, 128) + dense(3 * 128, C),
    "residue_tape_torch": 2 * H + dense(5 * H, 512) + 1 + dense(3 * 512, C) + 1,
    "residue_netsurfp": dense(129 * H, 32) + dense(257 * H, 32)
    + 2 * 4 * 1024 * ((H + 64) + 1024 + 2) + 2 * 4 * 1024 * (2048 + 1024 + 2) + dense(2048, C),
    "contact_megatron": dense(2 * H, H) + dense(H, 2),
    "contact_tape_torch": dense(2 * H, 2),
    "contact_plm_tape": dense(2 * H, 64) + 30 * 2 * (9 * 64 * 64 + 2 * 64) + dense(64, 2),
    "contact_tape2019": dense(H, 64) + 64 + 2 * 128 + dense(128, 64)
    + 30 * 2 * (2 * 64 + dense(9 * 64, 64)) + dense(64, 1) + 1,
    "sequence_megatron": dense(H, H) + dense(H, C),
    "sequence_plm_tape": dense(H, 1024) + 1 + dense(1024, C) + 1,
    "sequence_tape_torch": dense(H, H) + dense(H, 512) + 1 + dense(512, C) + 1,
    "sequence_tape2019": 2 * H + dense(H, 1) + 1 + 2 * H + dense(H, 512) + 512 + dense(512, C) + C,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_the_formula_says(name: str) -> None:
    head = made(name, small=False, hidden_size=H)
    assert sum(parameter.numel() for parameter in head.parameters()) == COUNTS[name]


# -- against formulas written by hand


def weights_of(head: nn.Module) -> dict[str, np.ndarray]:
    """All parameters drawn anew, so that no zero and no one hides a mistake."""
    torch.manual_seed(3)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return {key: value.detach().numpy() for key, value in head.state_dict().items()}


def weight_normed(weights: dict[str, np.ndarray], name: str, whole: bool) -> np.ndarray:
    """g v / |v|, with one norm or one for each output."""
    prefix = f"{name}.parametrizations.weight.original"
    scale, direction = weights[f"{prefix}0"], weights[f"{prefix}1"]
    if whole:
        assert scale.shape == ()
        return scale * direction / np.sqrt((direction**2).sum())
    norms = np.sqrt((direction**2).reshape(len(direction), -1).sum(1))
    return scale * direction / norms.reshape(-1, *[1] * (direction.ndim - 1))


def slid(states: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A convolution over (T, D) by loops, zeros beyond both ends."""
    reach, out = kernel.shape[-1] // 2, np.tile(bias, (len(states), 1))
    for place in range(len(states)):
        for offset in range(-reach, reach + 1):
            if 0 <= place + offset < len(states):
                out[place] += kernel[:, :, reach + offset] @ states[place + offset]
    return out


def slid_map(states: np.ndarray, kernel: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    """The same over a map (T, T, D)."""
    width, reach = len(states), kernel.shape[-1] // 2
    out = np.zeros((width, width, len(kernel))) + bias
    for i, j in np.ndindex(width, width):
        for a, b in np.ndindex(2 * reach + 1, 2 * reach + 1):
            x, y = i + a - reach, j + b - reach
            if 0 <= x < width and 0 <= y < width:
                out[i, j] += kernel[:, :, a, b] @ states[x, y]
    return out


def layer_normed(states: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def batch_normed(
    states: np.ndarray, weights: dict[str, np.ndarray], name: str, eps: float
) -> np.ndarray:
    """By the statistics of what is given."""
    flat = states.reshape(-1, states.shape[-1])
    scaled = (states - flat.mean(0)) / np.sqrt(flat.var(0) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def states_of(length: int) -> tuple[Tensor, np.ndarray]:
    torch.manual_seed(4)
    hidden = torch.randn(1, length, D, dtype=torch.float64)
    return hidden, hidden[0].numpy()


def close(head: nn.Module, hidden: Tensor, expected: np.ndarray) -> None:
    found = answer(head, hidden)[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-10)


def residue_tape2019(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    inner = slid(layer_normed(states, w, "norm"), w["inner.weight"], w["inner.bias"])
    return slid(inner.clip(0), w["out.weight"], w["out.bias"])


def residue_tape_torch(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    normed = batch_normed(states, w, "norm", 1e-5)
    inner = slid(normed, weight_normed(w, "inner", True), w["inner.bias"])
    return slid(inner.clip(0), weight_normed(w, "out", True), w["out.bias"])


def residue_megatron(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    inner = np.tanh(states @ w["layers.dense.weight"].T + w["layers.dense.bias"])
    return inner @ w["layers.out.weight"].T + w["layers.out.bias"]


def residue_linear(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    return states @ w["out.weight"].T + w["out.bias"]


@pytest.mark.parametrize(
    ("head", "formula"),
    [
        (ResidueTape2019(D, 3, 6, 5, 3), residue_tape2019),
        (ResidueTapeTorch(D, 3, 6, 5, 3, 0.0, 1e-5, 0.1), residue_tape_torch),
        (ResidueMegatron(D, 3, 0.0, 0.02), residue_megatron),
        (ResidueLinear(D, 3, 0.0), residue_linear),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_residue_heads_equal_their_formula(head: nn.Module, formula: Callable[..., Any]) -> None:
    hidden, states = states_of(7)
    head = copy.deepcopy(head).double().train()  # batch norms by the statistics of what they see
    close(head, hidden, formula(states, weights_of(head)))


def test_netsurfp_equals_layers_run_by_hand() -> None:
    head = ResidueNetSurfP(D, 3, 4, [3, 5], 6, 2).double()
    weights = weights_of(head)
    hidden, states = states_of(7)
    seen = [
        slid(states, weights[f"convolutions.{i}.weight"], weights[f"convolutions.{i}.bias"]).clip(0)
        for i in (0, 1)
    ]
    features = np.concatenate([states, *seen], 1)
    for layer in (0, 1):
        directions = []
        for suffix, order in (("", 1), ("_reverse", -1)):
            w = {part: weights[f"lstm.{part}_l{layer}{suffix}"]
                 for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}  # fmt: skip
            state, cell, outputs = np.zeros(6), np.zeros(6), []
            for token in features[::order]:
                gates = (
                    w["weight_ih"] @ token + w["weight_hh"] @ state + w["bias_ih"] + w["bias_hh"]
                )
                i, f, g, o = gates.reshape(4, 6)
                sigmoid = lambda value: 1 / (1 + np.exp(-value))  # noqa: E731
                cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
                state = sigmoid(o) * np.tanh(cell)
                outputs.append(state)
            directions.append(np.array(outputs)[::order])
        features = np.concatenate(directions, 1)
    close(head, hidden, features @ weights["out.weight"].T + weights["out.bias"])


def mirrored(scores: np.ndarray) -> np.ndarray:
    return (scores + scores.transpose(1, 0, 2)) / 2


def pair_features(states: np.ndarray) -> np.ndarray:
    left, right = states[:, None], states[None]
    return np.concatenate([left * right, left - right], -1)


def test_contact_tape_torch_equals_its_formula() -> None:
    head = ContactTapeTorch(D, 2, 0.5).double().eval()
    w, (hidden, states) = weights_of(head), states_of(7)
    scores = pair_features(states) @ w["features.linear.weight"].T + w["features.linear.bias"]
    close(head, hidden, mirrored(scores))


def test_features_of_pairs_by_both_ways() -> None:
    """Training holds them all, for dropout; evaluation does not."""
    hidden, _ = states_of(7)
    layer = ProductDifference(D, 4, 1e-12).double()
    torch.testing.assert_close(layer.train()(hidden), layer.eval()(hidden), rtol=1e-9, atol=1e-9)


def test_dropout_of_pair_features_has_the_right_mean() -> None:
    hidden, _ = states_of(3)
    layer = ProductDifference(D, 2, 0.5).double()
    drawn = torch.stack([layer.train()(hidden) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(drawn, layer.eval()(hidden), rtol=0, atol=0.1)


def test_contact_megatron_equals_the_naive_form() -> None:
    """The concatenation (T, T, 2D), which the head never makes."""
    head = ContactMegatron(D, 2, 0.0, 0.02).double()
    weights_of(head)
    hidden, _ = states_of(7)
    left = hidden[:, :, None].expand(-1, -1, 7, -1)
    naive = head.layers(torch.cat([left, left.transpose(1, 2)], -1))
    torch.testing.assert_close(head(hidden), (naive + naive.transpose(1, 2)) / 2)


def test_contact_plm_tape_equals_its_formula() -> None:
    head = ContactPlmTape(D, 2, 4, 2, 3, 0.0, 1e-5, 0.1).double().train()
    w, (hidden, states) = weights_of(head), states_of(5)
    maps = pair_features(states) @ w["features.linear.weight"].T + w["features.linear.bias"]
    for block in ("blocks.0", "blocks.1"):
        inner = slid_map(maps, w[f"{block}.first.weight"], 0.0)
        inner = batch_normed(inner, w, f"{block}.first_norm", 1e-5).clip(0)
        inner = slid_map(inner, w[f"{block}.second.weight"], 0.0)
        maps = (maps + batch_normed(inner, w, f"{block}.second_norm", 1e-5)).clip(0)
    close(head, hidden, mirrored(maps @ w["out.weight"].T + w["out.bias"]))


def test_contact_tape2019_equals_its_formula() -> None:
    head = ContactTape2019(D, 2, 4, 2, 3, 0.0, 1e-3, 0.01).double().train()
    w, (hidden, states) = weights_of(head), states_of(5)

    def convolved(maps: np.ndarray, name: str) -> np.ndarray:
        normed = batch_normed(maps, w, f"{name}.norm", 1e-3).clip(0)
        weight, bias = w[f"{name}.convolution.weight"], w[f"{name}.convolution.bias"]
        return slid_map(normed, weight, bias)

    small = states @ weight_normed(w, "dense", False).T + w["dense.bias"]
    left = np.repeat(small[:, None], 5, 1)
    maps = convolved(np.concatenate([left, left.transpose(1, 0, 2)], -1), "mix")
    for block in ("blocks.0", "blocks.1"):
        maps = maps + convolved(convolved(maps, f"{block}.first"), f"{block}.second")
    score = mirrored(maps @ weight_normed(w, "out", False).T + w["out.bias"])
    close(head, hidden, np.concatenate([np.zeros_like(score), score], -1))


def test_two_logits_of_one_score_are_its_sigmoid() -> None:
    hidden, _ = states_of(5)
    head = made("contact_tape2019").eval()
    logits = answer(head, hidden)
    assert (logits[..., 0] == 0).all()
    torch.testing.assert_close(logits.softmax(-1)[..., 1], logits[..., 1].sigmoid())


def pooled_by_attention(states: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    normed = layer_normed(states, w, f"{name}norm")
    score = normed @ weight_normed(w, f"{name}score", False)[0] + w[f"{name}score.bias"]
    share = np.exp(score - score.max())
    return share / share.sum() @ states


def sequence_tape2019(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    normed = layer_normed(pooled_by_attention(states, w, "pooling."), w, "norm")
    inner = (weight_normed(w, "dense", False) @ normed + w["dense.bias"]).clip(0)
    return weight_normed(w, "out", False) @ inner + w["out.bias"]


def sequence_plm_tape(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    inner = (weight_normed(w, "dense", True) @ states[0] + w["dense.bias"]).clip(0)
    return weight_normed(w, "out", True) @ inner + w["out.bias"]


def sequence_tape_torch(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    pooled = np.tanh(w["pooler.weight"] @ states[0] + w["pooler.bias"])
    return sequence_plm_tape(pooled[None], w)


def sequence_megatron(states: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    return residue_megatron(states[0], w)


@pytest.mark.parametrize(
    ("head", "formula"),
    [
        (SequenceTape2019(D, 3, 6, 0.5, 0.1), sequence_tape2019),
        (SequencePlmTape(D, 3, "first", 6, 0.0), sequence_plm_tape),
        (SequenceTapeTorch(D, 3, "first", 6, 0.0), sequence_tape_torch),
        (SequenceMegatron(D, 3, "first", 0.1, 0.02), sequence_megatron),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_sequence_heads_equal_their_formula(head: nn.Module, formula: Callable[..., Any]) -> None:
    hidden, states = states_of(7)
    head = copy.deepcopy(head).double().eval()
    close(head, hidden, formula(states, weights_of(head)))


# -- layers


def test_masked_batch_norm_is_torchs_on_what_counts() -> None:
    torch.manual_seed(5)
    features, valid = torch.randn(4, 6, 3), torch.rand(4, 6) > 0.4
    ours, theirs = MaskedBatchNorm(3, 1e-5, 0.1), nn.BatchNorm1d(3)
    for _ in range(3):
        found = ours(features, valid)
        torch.testing.assert_close(found[valid], theirs(features[valid]))
        assert (found[~valid] == 0).all()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(features)[valid], theirs.eval()(features[valid]))


def test_a_place_alone_is_normalised_by_the_running_statistics() -> None:
    norm = MaskedBatchNorm(3, 1e-5, 0.1)
    norm(5 + torch.randn(50, 3))
    before = copy.deepcopy(norm.state_dict())
    for features, valid in ((torch.ones(1, 3), None), (torch.ones(2, 3), torch.zeros(2).bool())):
        found = norm(features, valid)
        assert found.isfinite().all()
        assert valid is None or not found.any()
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(norm(torch.ones(1, 3)), copy.deepcopy(norm).eval()(torch.ones(1, 3)))


def test_attention_pooling_of_nothing_is_zero() -> None:
    pooling = AttentionPooling(D, 0.0)
    valid = torch.zeros(2, 4, dtype=torch.bool)
    assert not pooling(torch.full((2, 4, D), torch.nan), valid).any()


# -- where they meet the rest of the program


class Encoder(nn.Module):
    """A trunk, as models have one."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Module()
        self.trunk.hidden_size = D


def test_a_head_for_parts_is_refused_for_whole_sequences_and_back() -> None:
    residues = partial(ResidueLinear, dropout=0.0)
    chains = partial(LinearHead, pooling="mean", dropout=0.0)
    with pytest.raises(UserError, match="ResidueLinear predicts residues, and these targets are"):
        PropertyModel.on(Encoder(), residues, "regression", 1, 0)
    with pytest.raises(UserError, match="is a head for chains"):
        SiteModel.on(Encoder(), chains, "pair", 2)


def test_which_heads_pool_by_learning() -> None:
    assert made("sequence_tape2019").pools_by_learning
    assert not made("sequence_tape_torch").pools_by_learning
    assert not LinearHead(D, 1, "mean", 0.0).pools_by_learning


def test_a_probe_refuses_a_head_that_learns_to_pool() -> None:
    """Its states are computed once, before anything is learnt."""
    head = partial(SequenceTape2019, inner_size=4, dropout=0.0, attention_dropout=0.0)
    objective, targets = Regression("l1", 1.0, 0.2, None), [plain_target("y", "y", "")]
    with pytest.raises(UserError, match="SequenceTape2019 learns how to pool, and a probe keeps"):
        Probe(Encoder(), head, objective, targets, "regression", [], [1.0], 1, 1, 1.0, None, None, ".")  # fmt: skip
