"""Layers against independent oracles: hand-written cells, NumPy loops, closed forms."""

# B = sequences, T = tokens, D = hidden size, H = hidden or heads, F = size of a head

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.attention import (
    CausalSelfAttention,
    Context,
    KeyValueCache,
    causal_attention,
)
from lit_seqlm.model.layers.dropout import DroppedEmbedding, LockedDropout, drop_weight
from lit_seqlm.model.layers.feed_forward import FeedForward
from lit_seqlm.model.layers.positions import POSITIONS, Positions, RotaryPositions
from lit_seqlm.model.layers.qrnn import (
    QRNNLayer,
    linear_recurrence,
    linear_recurrence_loop,
    scan_chunks,
    scan_steps,
)
from lit_seqlm.model.layers.recurrent import LSTMStack


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- dropout


def test_locked_mask_is_constant_over_time_and_differs_between_sequences() -> None:
    dropped_BTD = LockedDropout(0.4)(torch.ones(8, 5, 100))
    assert (dropped_BTD == dropped_BTD[:, :1]).all()
    assert not (dropped_BTD[0] == dropped_BTD[1]).all()
    assert dropped_BTD.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert dropped_BTD.mean().item() == pytest.approx(1.0, abs=0.1)


def test_locked_dropout_does_nothing_in_eval() -> None:
    hidden_BTD = torch.randn(2, 3, 4)
    assert LockedDropout(0.4).eval()(hidden_BTD) is hidden_BTD


def test_embedding_dropout_drops_whole_words_and_leaves_the_matrix() -> None:
    embedding = DroppedEmbedding(500, 6, rate=0.2)
    before = embedding.weight.detach().clone()
    tokens_BT = torch.arange(500).repeat(2, 2)
    ratio_BTD = (embedding(tokens_BT) / embedding.weight[tokens_BT]).detach()
    assert (ratio_BTD == ratio_BTD[..., :1]).all()  # whole rows
    assert torch.equal(ratio_BTD[0, :500], ratio_BTD[1, 500:])  # the same at every occurrence
    assert set(ratio_BTD.round(decimals=4).unique().tolist()) == {0.0, 1.25}
    assert (ratio_BTD == 0).double().mean().item() == pytest.approx(0.2, abs=0.06)
    assert torch.equal(embedding.weight, before)
    assert torch.equal(embedding.eval()(tokens_BT), before[tokens_BT])


def test_input_noise_has_its_deviation_in_training_only() -> None:
    embedding = DroppedEmbedding(10, 400, noise_std=0.15)
    tokens_BT = torch.arange(10).expand(20, 10)
    noise_BTD = embedding(tokens_BT) - embedding.weight[tokens_BT]
    assert noise_BTD.std().item() == pytest.approx(0.15, rel=0.02)
    assert torch.equal(embedding.eval()(tokens_BT), embedding.weight[tokens_BT])


def test_drop_weight_scales_what_it_keeps() -> None:
    weight = torch.ones(40, 40)
    assert drop_weight(weight, 0.2, training=True).unique().tolist() == pytest.approx([0.0, 1.25])
    assert drop_weight(weight, 0.2, training=False) is weight


# -- LSTM


def lstm_by_hand(input_BTD: Tensor, weights: dict[str, Tensor], mask: Tensor) -> Tensor:
    """Gates in torch's order i, f, g, o; the recurrent matrix times `mask`."""
    hidden_BH = input_BTD.new_zeros(input_BTD.size(0), mask.size(1))
    cell_BH = hidden_BH
    outputs = []
    for input_BD in input_BTD.unbind(1):
        gates = input_BD @ weights["weight_ih_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
        gates = gates + hidden_BH @ (weights["weight_hh_l0"] * mask).T
        i, f, g, o = gates.chunk(4, dim=-1)
        cell_BH = f.sigmoid() * cell_BH + i.sigmoid() * g.tanh()
        hidden_BH = o.sigmoid() * cell_BH.tanh()
        outputs.append(hidden_BH)
    return torch.stack(outputs, dim=1)


def test_weight_drop_equals_a_hand_written_lstm_in_values_and_gradients() -> None:
    stack = LSTMStack([3, 5], torch.nn.Identity(), weight_dropout=0.5).double()
    weights = dict(stack.layers[0].named_parameters())
    input_BTD = torch.randn(2, 7, 3, dtype=torch.float64)
    torch.manual_seed(3)
    ours, _ = stack(input_BTD, None)
    torch.manual_seed(3)
    mask = torch.nn.functional.dropout(torch.ones_like(weights["weight_hh_l0"]), 0.5)
    assert 0 < (mask == 0).sum() < mask.numel()
    theirs = lstm_by_hand(input_BTD, weights, mask)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    direction = torch.randn_like(ours)
    ours_grads = torch.autograd.grad((ours * direction).sum(), list(weights.values()))
    their_grads = torch.autograd.grad((theirs * direction).sum(), list(weights.values()))
    for name, our_grad, their_grad in zip(weights, ours_grads, their_grads, strict=True):
        torch.testing.assert_close(our_grad, their_grad, rtol=0, atol=1e-12, msg=name)


@pytest.mark.gpu
def test_weight_drop_on_cudnn_equals_a_hand_written_lstm() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; run with -m gpu on a machine that has one")
    stack = LSTMStack([3, 5], torch.nn.Identity(), weight_dropout=0.5).cuda()
    weights = dict(stack.layers[0].named_parameters())
    input_BTD = torch.randn(2, 7, 3, device="cuda")
    torch.manual_seed(3)
    ours, _ = stack(input_BTD, None)
    torch.manual_seed(3)
    mask = torch.nn.functional.dropout(torch.ones_like(weights["weight_hh_l0"]), 0.5)
    torch.testing.assert_close(ours, lstm_by_hand(input_BTD, weights, mask), rtol=0, atol=1e-5)
    ours.sum().backward()
    assert weights["weight_hh_l0"].grad.abs().sum() > 0


def test_weight_drop_spares_the_first_step_and_changes_the_next() -> None:
    stack = LSTMStack([3, 20], torch.nn.Identity(), weight_dropout=0.5)
    input_BTD = torch.randn(2, 4, 3)
    first, second = stack(input_BTD, None)[0], stack(input_BTD, None)[0]
    torch.testing.assert_close(
        first[:, 0], second[:, 0]
    )  # from a zero state there is nothing to drop
    assert not torch.allclose(first[:, 1:], second[:, 1:])
    stack.eval()
    assert torch.equal(stack(input_BTD, None)[0], stack(input_BTD, None)[0])


def test_weight_drop_keeps_names_and_reaches_the_raw_weight() -> None:
    stack = LSTMStack([3, 4, 5], LockedDropout(0.1), weight_dropout=0.5)
    assert "layers.1.weight_hh_l0" in dict(stack.named_parameters())
    stack(torch.randn(2, 6, 3), None)[0].square().sum().backward()
    for layer in stack.layers:
        assert layer.weight_hh_l0.grad.abs().sum() > 0


def test_loss_falls_with_only_weight_hh_free_under_weight_drop() -> None:
    stack = LSTMStack([3, 16], torch.nn.Identity(), weight_dropout=0.2)
    free = stack.layers[0].weight_hh_l0
    optimizer = torch.optim.Adam([free], lr=0.02)
    input_BTD, goal_BTD = torch.randn(4, 8, 3), 0.3 * torch.randn(4, 8, 16)

    def loss() -> Tensor:
        return (stack(input_BTD, None)[0] - goal_BTD).square().mean()

    before = loss().item()
    for _ in range(40):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.9 * before


# -- QRNN


def recurrence_inputs(length: int) -> tuple[Tensor, Tensor, Tensor]:
    decay = torch.rand(3, length, 4, dtype=torch.float64)
    decay[0, 0], decay[1, length // 2] = 0.0, 1.0  # the edges of a forget gate
    inputs = torch.randn(3, length, 4, dtype=torch.float64)
    return decay, inputs, torch.randn(3, 4, dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 2, 7, 30])
@pytest.mark.parametrize("chunk", [1, 3, 30])
def test_scans_equal_the_loop(length: int, chunk: int) -> None:
    inputs = recurrence_inputs(length)
    expected = linear_recurrence_loop(*inputs)
    torch.testing.assert_close(scan_steps(*inputs), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(scan_chunks(*inputs, chunk), expected, rtol=0, atol=1e-13)


def test_recurrence_has_the_gradient_of_the_loop() -> None:
    inputs = [part.requires_grad_() for part in recurrence_inputs(9)]
    direction = torch.randn(3, 9, 4, dtype=torch.float64)
    ours = torch.autograd.grad((linear_recurrence(*inputs) * direction).sum(), inputs)
    loop = torch.autograd.grad((linear_recurrence_loop(*inputs) * direction).sum(), inputs)
    for our_grad, loop_grad in zip(ours, loop, strict=True):
        torch.testing.assert_close(our_grad, loop_grad, rtol=0, atol=1e-12)


def test_chunked_scan_is_finite_where_products_of_decays_vanish() -> None:
    decay, inputs = torch.full((1, 400, 1), 1e-6), torch.ones(1, 400, 1)
    output = scan_chunks(decay, inputs, torch.full((1, 1), 1e30), 20)
    torch.testing.assert_close(output[:, 10:], torch.full((1, 390, 1), 1 + 1e-6))


@pytest.mark.parametrize("window", [1, 2])
def test_qrnn_layer_equals_a_numpy_loop(window: int) -> None:
    layer = QRNNLayer(3, 5, window, weight_dropout=0.0).double()
    inputs = torch.randn(2, 6, 3, dtype=torch.float64)
    weight, bias = layer.linear.weight.detach().numpy(), layer.linear.bias.detach().numpy()

    def sigmoid(value: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-value))

    expected, cell = np.zeros((2, 6, 5)), np.zeros((2, 5))
    for step in range(6):
        before = inputs[:, step - 1].numpy() if step else np.zeros((2, 3))
        now = inputs[:, step].numpy()
        source = np.concatenate([now, before], 1) if window == 2 else now
        z, f, o = np.split(source @ weight.T + bias, 3, axis=1)
        cell = sigmoid(f) * np.tanh(z) + (1 - sigmoid(f)) * cell
        expected[:, step] = sigmoid(o) * cell
    hidden, state = layer(inputs, None)
    np.testing.assert_allclose(hidden.detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(state[0].detach().numpy(), cell, atol=1e-12)


def test_qrnn_carries_the_last_input_without_its_gradient() -> None:
    layer = QRNNLayer(3, 5, window=2, weight_dropout=0.0)
    inputs = torch.randn(2, 4, 3, requires_grad=True)
    _, (cell, last) = layer(inputs, None)
    assert torch.equal(last, inputs[:, -1:])
    assert not last.requires_grad
    assert cell.requires_grad


def test_qrnn_weight_drop_is_on_the_linear_weight_in_training_only() -> None:
    layer = QRNNLayer(3, 20, window=1, weight_dropout=0.5)
    inputs = torch.randn(2, 4, 3)
    assert not torch.allclose(layer(inputs, None)[0], layer(inputs, None)[0])
    layer(inputs, None)[0].sum().backward()
    assert layer.linear.weight.grad.abs().sum() > 0
    layer.eval()
    assert torch.equal(layer(inputs, None)[0], layer(inputs, None)[0])


# -- attention and positions


def attention_loop(q_TF: np.ndarray, k_SF: np.ndarray, v_SF: np.ndarray) -> np.ndarray:
    """Row t of the last T attends to keys 0 .. S - T + t."""
    offset = len(k_SF) - len(q_TF)
    rows = []
    for index, query in enumerate(q_TF):
        seen = offset + index + 1
        scores = np.array([query @ key for key in k_SF[:seen]]) / math.sqrt(len(query))
        weights = np.exp(scores - scores.max())
        rows.append((weights / weights.sum()) @ v_SF[:seen])
    return np.stack(rows)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (5, 5), (1, 6), (3, 8)])
def test_attention_equals_a_numpy_loop(num_queries: int, num_keys: int) -> None:
    queries = torch.randn(2, 3, num_queries, 4, dtype=torch.float64)
    keys = torch.randn(2, 3, num_keys, 4, dtype=torch.float64)
    values = torch.randn(2, 3, num_keys, 4, dtype=torch.float64)
    mixed = causal_attention(queries, keys, values, dropout=0.0)
    for batch in range(2):
        for head in range(3):
            parts = [part[batch, head].numpy() for part in (queries, keys, values)]
            np.testing.assert_allclose(
                mixed[batch, head].numpy(), attention_loop(*parts), atol=1e-12
            )


def test_rotary_product_depends_on_the_distance_alone() -> None:
    positions = RotaryPositions(16, 2)
    query, key = torch.randn(1, 1, 1, 8).double(), torch.randn(1, 1, 1, 8).double()

    def product(at_query: int, at_key: int) -> float:
        turned = positions.rotation(torch.tensor([at_query]), torch.float64)(query)
        return float(
            (turned * positions.rotation(torch.tensor([at_key]), torch.float64)(key)).sum()
        )

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-10)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)


def test_rotary_turns_each_pair_by_its_own_angle() -> None:
    heads = torch.randn(1, 1, 3, 6, dtype=torch.float64)
    turned = RotaryPositions(6, 1).rotation(torch.tensor([0, 5, 9]), torch.float64)(heads)
    for step, position in enumerate((0, 5, 9)):
        for pair in range(3):
            number = complex(*heads[0, 0, step, 2 * pair : 2 * pair + 2].tolist())
            angle = position / 10000 ** (2 * pair / 6)
            expected = number * complex(math.cos(angle), math.sin(angle))
            result = complex(*turned[0, 0, step, 2 * pair : 2 * pair + 2].tolist())
            assert abs(result - expected) < 1e-12


def test_rotary_takes_positions_of_each_row() -> None:
    heads = torch.randn(2, 3, 4, 6)
    rows = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]])
    rotary = RotaryPositions(18, 3)
    together = rotary.rotation(rows, torch.float32)(heads)
    for index, row in enumerate(rows):
        alone = rotary.rotation(row, torch.float32)(heads[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone)


def test_rotary_angles_are_not_rounded_in_half_precision() -> None:
    ones = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    turned = RotaryPositions(2, 1).rotation(torch.tensor([256, 257]), torch.bfloat16)(ones)
    assert not torch.equal(turned[:, :, 0], turned[:, :, 1])


def test_sinusoidal_waves_are_those_of_the_paper() -> None:
    waves = POSITIONS["sinusoidal"](8, 2).embed(
        torch.zeros(1, 4, 8, dtype=torch.float64), torch.arange(10, 14)
    )
    for step in range(4):
        for i in range(4):
            angle = (10 + step) / 10000 ** (2 * i / 8)
            assert waves[0, step, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert waves[0, step, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_each_kind_of_position_leaves_the_other_half_alone() -> None:
    hidden, heads = torch.randn(1, 2, 8), torch.randn(1, 2, 2, 4)
    positions = torch.arange(3, 5)
    assert POSITIONS["rotary"](8, 2).embed(hidden, positions) is hidden
    assert POSITIONS["sinusoidal"](8, 2).rotation(positions, torch.float32)(heads) is heads


def test_cache_refuses_what_it_has_no_room_for_and_what_needs_a_gradient() -> None:
    cache = KeyValueCache(torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2))
    cache.append(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
    with pytest.raises(ValueError, match="room for 4 tokens, not 5"):
        cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="no_grad"):
        cache.append(torch.ones(1, 1, 1, 2, requires_grad=True), torch.ones(1, 1, 1, 2))
    assert cache.length == 3


def test_attention_dropout_is_off_in_eval() -> None:
    attention = CausalSelfAttention(8, 2, dropout=0.5)
    rotation = Positions().rotation(torch.arange(5), torch.float32)
    hidden = torch.randn(1, 5, 8)

    def run() -> Tensor:
        return attention(hidden, rotation, Context())

    assert not torch.allclose(run(), run())
    attention.eval()
    assert torch.equal(run(), run())


def test_impossible_sizes_and_names_are_refused_with_what_to_type() -> None:
    with pytest.raises(
        UserError, match=r"model.hidden_size=10 is not a multiple of model.num_heads=4"
    ):
        CausalSelfAttention(10, 4, 0.0)
    with pytest.raises(UserError, match="must be even"):
        RotaryPositions(6, 2)
    with pytest.raises(UserError, match="choose one of relu, gelu"):
        FeedForward(4, 8, "swoosh", 0.0)
