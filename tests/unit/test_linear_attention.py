"""Linear attention, its kernels and rotary positions, against NumPy loops and closed forms."""

# B = sequences, T = tokens, D = hidden size, C = 2: queries, keys; H = heads, N = B * H,
# F = size of a head, R = features

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.bidirectional_attention import SoftmaxAttention
from lit_seqlm.model.layers.bit_dropout import BitDropout
from lit_seqlm.model.layers.by_head import pairs, rectified, sums
from lit_seqlm.model.layers.feature_map import ArcCosine, ReluFeatures, draw_omega
from lit_seqlm.model.layers.half_rotary import HalfRotary, NoRotation
from lit_seqlm.model.layers.linear_attention import LinearAttention

SIZE, HEADS, ROWS, TOKENS = 16, 2, 3, 7
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def attention(size: int = SIZE, num_heads: int = HEADS, **changes: object) -> LinearAttention:
    options: dict[str, object] = {
        "kernel": "relu_features", "num_features": 24, "omega_policy": "fixed", "omega_scale": 0.125,
        "order": "auto", "guard": "add", "guard_eps": 1e-6,
    }  # fmt: skip
    return LinearAttention(size, num_heads, **(options | changes))  # type: ignore[arg-type]


def rotation(dtype: torch.dtype = torch.float64, size: int = SIZE // HEADS) -> NoRotation:
    return HalfRotary(size, 4)(TOKENS, CPU, dtype)


def padding() -> Tensor:
    valid_BT = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    valid_BT[1, 4:], valid_BT[2, 1:] = False, False
    return valid_BT


# -- an independent account of the whole layer


def turned(head: np.ndarray, position: int) -> np.ndarray:
    """Entry j and entry j + F / 2 as a complex number, times exp(i m w_j)."""
    half = len(head) // 2
    angles = position * 10000.0 ** (-2 * np.arange(half) / len(head))
    complex_J = (head[:half] + 1j * head[half:]) * np.exp(1j * angles)
    return np.concatenate([complex_J.real, complex_J.imag])


def kernel_value(layer: LinearAttention, query: np.ndarray, key: np.ndarray) -> float:
    if isinstance(layer.features, ReluFeatures):
        omega = layer.features.omega.double().numpy()
        return float(np.maximum(query @ omega, 0) @ np.maximum(key @ omega, 0))
    if isinstance(layer.features, ArcCosine):
        lengths = np.linalg.norm(query) * np.linalg.norm(key)
        angle = np.arccos(np.clip(query @ key / lengths, -1, 1))
        return float(lengths / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)))
    positive = [np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (query, key)]
    return float(positive[0] @ positive[1])


def by_loops(
    layer: LinearAttention, hidden_BTD: Tensor, valid_BT: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Output (B, T, D) and weights (B, H, T, T), one pair at a time."""
    weight, bias = (p.detach().double().numpy() for p in (layer.qkv.weight, layer.qkv.bias))
    qkv_BTCHF = (hidden_BTD.double().numpy() @ weight.T + bias).reshape(ROWS, TOKENS, 3, HEADS, -1)
    maps = np.zeros((ROWS, HEADS, TOKENS, TOKENS))
    mixed = np.zeros((ROWS, TOKENS, HEADS, SIZE // HEADS))
    for b, h, m in np.ndindex(ROWS, HEADS, TOKENS):
        query = turned(qkv_BTCHF[b, m, 0, h], m)
        for n in range(TOKENS):
            if valid_BT is None or valid_BT[b, n]:
                maps[b, h, m, n] = kernel_value(layer, query, turned(qkv_BTCHF[b, n, 1, h], n))
        total = maps[b, h, m].sum()
        maps[b, h, m] /= max(total, 1e-6) if layer.guard == "clamp" else total + 1e-6
        mixed[b, m, h] = maps[b, h, m] @ qkv_BTCHF[b, :, 2, h]
    weight, bias = (p.detach().double().numpy() for p in (layer.out.weight, layer.out.bias))
    return mixed.reshape(ROWS, TOKENS, SIZE) @ weight.T + bias, maps


CASES = [
    ("relu_features", "linear", "add"), ("relu_features", "quadratic", "add"), ("relu_features", "auto", "clamp"),
    ("elu_plus_one", "linear", "clamp"), ("elu_plus_one", "quadratic", "add"), ("arccos", "auto", "add"),
]  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kernel", "order", "guard"), CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_the_layer_is_what_loops_compute(
    kernel: str, order: str, guard: str, padded: bool, dtype: torch.dtype, tolerance: float
) -> None:
    layer = attention(kernel=kernel, order=order, guard=guard).to(dtype)
    hidden_BTD = torch.randn(ROWS, TOKENS, SIZE, dtype=dtype)
    valid_BT = padding() if padded else None
    output, maps = by_loops(layer, hidden_BTD, valid_BT)
    for grad in (True, False):  # the normaliser is computed in two ways
        with torch.set_grad_enabled(grad):
            found_TBD = layer(hidden_BTD.transpose(0, 1), rotation(dtype), valid_BT).detach()
            np.testing.assert_allclose(found_TBD.transpose(0, 1), output, atol=tolerance)
    with_maps_TBD, maps_BHTT = layer.forward_with_maps(
        hidden_BTD.transpose(0, 1), rotation(dtype), valid_BT
    )
    np.testing.assert_allclose(maps_BHTT.detach(), maps, atol=tolerance)
    np.testing.assert_allclose(with_maps_TBD.detach().transpose(0, 1), output, atol=tolerance)


def einsum_layer(layer: LinearAttention, hidden_TBD: Tensor, valid_BT: Tensor) -> Tensor:
    """The layer in plain operations, whose gradients are autograd's own."""
    qkv = layer.qkv(hidden_TBD).unflatten(-1, (3, HEADS, -1))
    turn = rotation(hidden_TBD.dtype)
    omega = layer.features.omega.to(hidden_TBD)  # type: ignore[operator]
    queries, keys = (torch.relu(turn.heads(qkv[:, :, part]) @ omega) for part in (0, 1))
    keys = keys * valid_BT.T[..., None, None]
    state = torch.einsum("tbhr,tbhf->bhrf", keys, qkv[:, :, 2])
    normaliser = torch.einsum("tbhr,bhr->tbh", queries, keys.sum(0)) + layer.guard_eps * 64
    mixed = torch.einsum("tbhr,bhrf->tbhf", queries, state) / normaliser[..., None]
    return layer.out(mixed.flatten(2))


@pytest.mark.parametrize("order", ["linear", "quadratic"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str
)
def test_gradients_are_autograds(order: str, dtype: torch.dtype, tolerance: float) -> None:
    layer = attention(order=order).to(dtype)
    hidden_TBD = torch.randn(TOKENS, ROWS, SIZE, dtype=dtype, requires_grad=True)
    direction_TBD = torch.randn(TOKENS, ROWS, SIZE, dtype=dtype)
    inputs = [hidden_TBD, *layer.parameters()]
    found, expected = (
        torch.autograd.grad((output_TBD * direction_TBD).sum(), inputs)
        for output_TBD in (
            layer(hidden_TBD, rotation(dtype), padding()),
            einsum_layer(layer, hidden_TBD, padding()),
        )
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("by_position", [False, True])
def test_own_gradients_pass_gradcheck(by_position: bool) -> None:
    paired = torch.randn(4, 2, 2, 2, 6, dtype=torch.float64, requires_grad=True)
    omega = torch.randn(*[4] * by_position, 6, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rectified(x, omega), paired)
    left, right = (
        torch.randn(3, 4, size, dtype=torch.float64, requires_grad=True) for size in (5, 2)
    )
    assert torch.autograd.gradcheck(sums, (left, right))
    assert torch.autograd.gradcheck(lambda x: pairs(x, x.flip(1)), left)
    arccos = ArcCosine()
    assert torch.autograd.gradcheck(lambda x: arccos.similarity(x, NoRotation()), paired)


def test_the_cheaper_order_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = attention(size=128, num_heads=2, num_features=32)  # 2 R F / (R + F) = 42.7
    taken: list[str] = []
    for name in ("weights", "_linear"):
        whole = getattr(layer, name)
        monkeypatch.setattr(
            layer, name, lambda *a, whole=whole, name=name: (taken.append(name), whole(*a))[1]
        )
    for num_tokens in (42, 43):
        turn = HalfRotary(64, 4)(num_tokens, CPU, torch.float32)
        layer(torch.randn(num_tokens, 1, 128), turn, None)
    assert taken == ["weights", "_linear"]


@pytest.mark.parametrize("make", [attention, lambda: SoftmaxAttention(SIZE, HEADS, 0.0)])
@pytest.mark.parametrize("order", ["linear", "quadratic"])
def test_a_sequence_without_keys_gets_zeros(make: Callable[..., nn.Module], order: str) -> None:
    layer = make(order=order) if make is attention else make()
    hidden_TBD = torch.randn(TOKENS, ROWS, SIZE, requires_grad=True)
    valid_BT = padding()
    valid_BT[2] = False
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            output_TBD = layer(hidden_TBD, rotation(torch.float32), valid_BT)
            torch.testing.assert_close(output_TBD[:, 2], layer.out.bias.expand(TOKENS, -1))
    layer(hidden_TBD, rotation(torch.float32), valid_BT).sum().backward()
    assert hidden_TBD.grad is not None
    assert hidden_TBD.grad.isfinite().all()


@pytest.mark.parametrize("order", ["linear", "quadratic"])
def test_bfloat16_is_close_and_sums_in_float32(order: str) -> None:
    layer = attention(order=order, omega_scale=1.0)
    hidden_TBD = torch.randn(TOKENS, ROWS, SIZE)
    exact_TBD = layer(hidden_TBD, rotation(torch.float32), padding())
    features: list[torch.dtype] = []
    original = layer.features.forward
    layer.features.forward = lambda paired, turn: (  # type: ignore[method-assign]
        features.append(paired.dtype), original(paired, turn),
    )[1]  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_TBD = layer(hidden_TBD, rotation(torch.float32), padding())
    assert found_TBD.dtype == torch.bfloat16
    assert features == [torch.float32]
    torch.testing.assert_close(found_TBD.float(), exact_TBD, atol=0.02, rtol=0.02)


# -- kernels


def test_arc_cosine_is_the_mean_over_gaussian_features() -> None:
    """Of relu(w a) relu(w b) over 100,000 draws of w, within 4 standard errors of each of 36 pairs."""
    paired = torch.randn(6, 1, 2, 1, 8, dtype=torch.float64)
    gaussian_FR = torch.randn(8, 100_000, dtype=torch.float64)
    products = torch.relu(paired[:, 0, 0, 0] @ gaussian_FR)[:, None] * torch.relu(
        paired[:, 0, 1, 0] @ gaussian_FR
    )
    error = products.std(-1) / math.sqrt(100_000)
    exact_TT = ArcCosine().similarity(paired, NoRotation())[0]
    assert ((exact_TT - products.mean(-1)).abs() < 4 * error).all()


def test_arc_cosine_has_gradients_at_parallel_and_opposite_heads() -> None:
    head = torch.tensor([3.0, 4.0], dtype=torch.float64)
    paired = torch.stack([head, 2 * head]).view(1, 1, 2, 1, 2).requires_grad_()
    value = ArcCosine().similarity(paired, NoRotation())
    assert value.item() == pytest.approx(25.0)  # |a| |b| / 2
    (gradient,) = torch.autograd.grad(value.sum(), paired)
    torch.testing.assert_close(gradient[0, 0, 0, 0], head)  # b / 2: half of all w see both
    opposite = torch.stack([head, -head]).view(1, 1, 2, 1, 2).requires_grad_()
    value = ArcCosine().similarity(opposite, NoRotation())
    (gradient,) = torch.autograd.grad(value.sum(), opposite)
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize(("size", "num_features"), [(64, 32), (8, 8), (8, 20)])
def test_omega_is_orthogonal_within_blocks(size: int, num_features: int) -> None:
    omega_FR = draw_omega(size, num_features)
    assert omega_FR.shape == (size, num_features)
    for block_FR in omega_FR.split(size, dim=1):
        unit_FR = block_FR / block_FR.norm(dim=0)
        cosines = unit_FR.T @ unit_FR - torch.eye(unit_FR.size(1))
        assert cosines.abs().max() < 1e-5


def test_columns_of_omega_are_as_long_as_gaussian_vectors() -> None:
    squares = torch.stack([draw_omega(16, 8).square().sum(0) for _ in range(1000)])
    assert squares.mean().item() == pytest.approx(16, rel=0.05)
    assert squares.var().item() == pytest.approx(32, rel=0.15)  # of chi^2 with 16 degrees


@pytest.mark.parametrize("guard", ["add", "clamp"])
def test_a_factor_on_omega_changes_nothing(guard: str) -> None:
    """Weak normalisers included: eps is in the kernel's own units."""
    hidden_TBD = torch.randn(TOKENS, ROWS, SIZE)
    layers = [attention(omega_scale=scale, guard=guard, guard_eps=0.5) for scale in (1.0, 0.125)]
    layers[1].load_state_dict(layers[0].state_dict())
    first, second = (layer(hidden_TBD, rotation(torch.float32), padding()) for layer in layers)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def test_an_omega_of_zeros_is_refused() -> None:
    model = nn.ModuleDict({"attention": attention()})
    state = model.state_dict()
    assert state["attention.features.omega"].shape == (SIZE // HEADS, 24)
    state["attention.features.omega"] = torch.zeros(SIZE // HEADS, 24)
    with pytest.raises(UserError, match=r"attention\.features\.omega is all zeros"):
        model.load_state_dict(state)


def differs(layer: LinearAttention) -> bool:
    hidden_TBD = torch.ones(TOKENS, ROWS, SIZE)
    turn = rotation(torch.float32)
    return not torch.equal(layer(hidden_TBD, turn, None), layer(hidden_TBD, turn, None))


@pytest.mark.parametrize(
    ("policy", "in_training", "in_eval"),
    [("fixed", False, False), ("redraw_train", True, False), ("redraw_always", True, True)],
)
def test_policies(policy: str, in_training: bool, in_eval: bool) -> None:
    layer = attention(omega_policy=policy)
    assert differs(layer.train()) == in_training
    assert differs(layer.eval()) == in_eval


def test_a_redraw_leaves_a_pending_backward_and_later_loading_alone() -> None:
    layer = attention(omega_policy="redraw_always")
    hidden_TBD = torch.randn(TOKENS, ROWS, SIZE)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    first = layer(hidden_TBD, rotation(torch.float32), None)
    with torch.inference_mode():
        layer(hidden_TBD, rotation(torch.float32), None)
    first.sum().backward()
    layer.load_state_dict(state)
    assert torch.equal(layer.features.omega, state["features.omega"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "relu_feature"}, "Did you mean relu_features"),
        ({"order": "cubic"}, r"model\.attention\.order=cubic"),
        ({"guard": "none"}, "Accepted: add, clamp"),
        ({"omega_policy": "redraw"}, "Did you mean redraw_"),
        ({"kernel": "arccos", "order": "linear"}, "order=quadratic"),
        ({"num_features": 0}, "must be positive"),
        ({"num_heads": 3}, "not a multiple"),
    ],
)
def test_words_and_numbers_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attention(**changes)  # type: ignore[arg-type]


# -- rotary positions in the half layout


def test_a_rotated_vector_by_hand() -> None:
    """F = 4, m = 1: pairs (1, 3) by one radian and (2, 4) by a hundredth."""
    turn = HalfRotary(4, 2)(2, CPU, torch.float64)
    head = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    first, second = turn.heads(head.expand(2, 1, 4))[:, 0]
    assert torch.equal(first, head)
    expected = [
        1 * math.cos(1) - 3 * math.sin(1), 2 * math.cos(0.01) - 4 * math.sin(0.01),
        3 * math.cos(1) + 1 * math.sin(1), 4 * math.cos(0.01) + 2 * math.sin(0.01),
    ]  # fmt: skip
    assert second.tolist() == pytest.approx(expected, abs=1e-12)


def test_products_depend_on_the_distance_alone() -> None:
    turn = HalfRotary(8, 4)(50, CPU, torch.float64)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    products = turn.heads(query.expand(50, 1, 8))[:, 0] @ turn.heads(key.expand(50, 1, 8))[:, 0].T
    for distance in range(-49, 50):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[0].std() > 0.1


def test_turning_omega_back_is_turning_the_heads() -> None:
    turn = HalfRotary(8, 4)(TOKENS, CPU, torch.float64)
    heads_TNF = torch.randn(TOKENS, 5, 8, dtype=torch.float64)
    omega_FR = torch.randn(8, 3, dtype=torch.float64)
    torch.testing.assert_close(
        turn.heads(heads_TNF) @ omega_FR, heads_TNF @ turn.features(omega_FR)
    )


def test_tables_grow_serve_training_after_validation_and_stay_in_float32() -> None:
    rotary = HalfRotary(8, 4)
    with torch.inference_mode():
        rotary(300, CPU, torch.float32)  # a table made here must not be an inference tensor
    heads = torch.ones(300, 1, 8, requires_grad=True)
    turn = rotary(300, CPU, torch.float32)
    turn.heads(heads).sum().backward()
    assert heads.grad is not None
    low = HalfRotary(8, 4)(300, CPU, torch.bfloat16).heads(torch.ones(300, 1, 8).bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), turn.heads(heads).detach(), atol=0.02, rtol=0.02)
    assert not rotary.state_dict()


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(UserError, match="must be even"):
        HalfRotary(7, 4)


# -- dropout by bits


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_bit_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    dropped = BitDropout(rate)(torch.ones(1_000_003))
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 1e6) + 2**-16)
    assert dropped[dropped > 0].unique().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    kept = (dropped > 0).double() - (1 - rate)  # neighbours share a random number, not a fate
    for lag in range(1, 6):
        correlation = (kept[:-lag] * kept[lag:]).mean() / (rate * (1 - rate))
        assert abs(correlation.item()) < 0.005


def test_bit_dropout_is_seeded_masks_gradients_alike_and_is_off_in_eval() -> None:
    hidden = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    first = BitDropout(0.5)(hidden)
    torch.manual_seed(1)
    assert torch.equal(first, BitDropout(0.5)(hidden))
    assert not torch.equal(first, BitDropout(0.5)(hidden))
    (gradient,) = torch.autograd.grad(first.sum(), hidden)
    torch.testing.assert_close(gradient * hidden, first)
    assert BitDropout(0.5).eval()(hidden) is hidden
    assert BitDropout(0.0)(hidden) is hidden
    assert not BitDropout(1.0)(hidden).any()
