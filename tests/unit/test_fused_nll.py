"""The fused loss against its oracle, torch's own losses, numerical gradients, and a bound on what it allocates."""

# N = positions, K = experts, D = hidden size, V = vocabulary

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_seqlm.model.layers import fused_nll as module
from lit_seqlm.model.layers.fused_nll import fused_nll
from lit_seqlm.model.layers.plain_nll import plain_nll

NAMES = ("hidden", "log_prior", "weight", "bias", "margin")


def make(
    num_rows: int = 23,
    num_experts: int = 1,
    size: int = 7,
    vocab_size: int = 31,
    dtype: torch.dtype = torch.float64,
    margin: float = 1.0,
) -> tuple[Tensor, ...]:
    """Random arguments of the loss, all floating ones asking for gradients."""
    rng = torch.Generator().manual_seed(num_rows * 100 + num_experts)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    prior = normal(num_rows, num_experts).log_softmax(-1)
    floating = (
        normal(num_rows, num_experts, size),
        prior,
        normal(vocab_size, size),
        normal(vocab_size),
        normal(num_rows, num_experts) * margin,
    )
    hidden, prior, weight, bias, shift = (part.to(dtype).requires_grad_() for part in floating)
    targets = torch.randint(vocab_size, (num_rows,), generator=rng)
    return hidden, prior, weight, bias, targets, shift


def gradients(loss: Any, inputs: tuple[Tensor, ...], smoothing: float) -> tuple[Tensor, ...]:
    """Loss, clean nll, and the gradients in the order of NAMES; the loss is scaled as a mean would."""
    leaves = [part for part in inputs if part.is_floating_point()]
    total, clean_nll_N = loss(*inputs, smoothing)
    return total, clean_nll_N, *torch.autograd.grad(0.3 * total, leaves)


@pytest.mark.parametrize(("num_experts", "smoothing"), [(1, 0.0), (1, 0.1), (3, 0.0)])
@pytest.mark.parametrize(
    ("elements", "min_rows", "block"), [(1, 1, 5), (1, 4, 31), (31 * 10, 1, 512), (2**22, 128, 1)]
)
def test_equals_the_plain_path_whatever_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
    num_experts: int,
    smoothing: float,
    elements: int,
    min_rows: int,
    block: int,
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(module, "MIN_CHUNK_ROWS", min_rows)
    monkeypatch.setattr(module, "BLOCK_WORDS", block)
    inputs = make(num_experts=num_experts)
    fused, plain = gradients(fused_nll, inputs, smoothing), gradients(plain_nll, inputs, smoothing)
    for name, ours, theirs in zip(("sum", "clean", *NAMES), fused, plain, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("num_experts", "smoothing"), [(1, 0.0), (1, 0.2), (2, 0.0)])
def test_gradients_are_the_numerical_ones(num_experts: int, smoothing: float) -> None:
    hidden, prior, weight, bias, targets, shift = make(3, num_experts, 2, 5)
    # The prior is normalised inside, so that moving it numerically stays a distribution.
    torch.autograd.gradcheck(
        lambda *parts: fused_nll(
            parts[0], parts[1].log_softmax(-1), *parts[2:4], targets, parts[4], smoothing
        )[0],
        (hidden, prior, weight, bias, shift),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_torch_cross_entropy(smoothing: float) -> None:
    hidden, _, weight, bias, targets, _ = make()
    zeros = torch.zeros(len(targets), 1, dtype=torch.float64)
    total, clean_nll_N = fused_nll(hidden, zeros, weight, bias, targets, zeros, smoothing)
    logits_NV = F.linear(hidden[:, 0], weight, bias)
    expected = F.cross_entropy(logits_NV, targets, reduction="sum", label_smoothing=smoothing)
    clean = F.cross_entropy(logits_NV, targets, reduction="none")
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(clean_nll_N, clean, rtol=1e-12, atol=1e-12)
    leaves = (hidden, weight, bias)
    ours, theirs = torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="needs torch 2.13")
def test_equals_torch_linear_cross_entropy() -> None:
    hidden, _, weight, bias, targets, _ = make(64, 1, 8, 40)
    zeros = torch.zeros(64, 1, dtype=torch.float64)
    expected = F.linear_cross_entropy(
        hidden[:, 0], weight, targets, linear_bias=bias, reduction="sum",
        options=torch.nn.LinearCrossEntropyOptions(),
    )  # fmt: skip
    total, _ = fused_nll(hidden, zeros, weight, bias, targets, zeros)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
    leaves = (hidden, weight, bias)
    ours, theirs = torch.autograd.grad(total, leaves), torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("num_experts", [1, 3])
def test_bf16_autocast_is_close_to_float64(num_experts: int) -> None:
    exact = make(64, num_experts, 16, 50)
    single = make(64, num_experts, 16, 50, torch.float32)
    reference = gradients(plain_nll, exact, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        total, clean_nll_N = fused_nll(*single)
    leaves = [part for part in single if part.is_floating_point()]
    grads = torch.autograd.grad(0.3 * total, leaves)
    assert (total.dtype, clean_nll_N.dtype) == (torch.float64, torch.float32)
    assert {grad.dtype for grad in grads} == {torch.float32}
    torch.testing.assert_close(total, reference[0], rtol=0.01, atol=0)
    for name, ours, theirs in zip(NAMES, grads, reference[2:], strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < 0.02, f"{name}: relative error {float(error):.3f}"


def test_parameters_in_bf16_get_gradients_in_bf16() -> None:
    inputs = make(dtype=torch.bfloat16)
    leaves = [part for part in inputs if part.is_floating_point()]
    grads = torch.autograd.grad(fused_nll(*inputs)[0], leaves)
    assert {grad.dtype for grad in grads} == {torch.bfloat16}


def test_without_gradients_the_numbers_are_the_same_and_no_gradient_is_computed() -> None:
    inputs = make()
    total, clean_nll_N = fused_nll(*inputs)
    sizes = _Sizes()
    with torch.no_grad(), sizes:
        quiet_total, quiet_nll_N = fused_nll(*inputs)
    assert not quiet_total.requires_grad
    assert torch.equal(quiet_total, total.detach())
    assert torch.equal(quiet_nll_N, clean_nll_N)
    assert not sizes.operators & {"aten::addmm_", "aten::mm", "aten::addmv_"}


@pytest.mark.parametrize("frozen", range(5))
def test_a_frozen_input_gets_no_gradient_and_changes_no_other(frozen: int) -> None:
    whole = gradients(fused_nll, make(), 0.0)[2:]
    inputs = make()
    leaves = [part for part in inputs if part.is_floating_point()]
    leaves[frozen].requires_grad_(False)
    fused_nll(*inputs)[0].mul(0.3).backward()
    for index, (leaf, expected) in enumerate(zip(leaves, whole, strict=True)):
        if index == frozen:
            assert leaf.grad is None
        else:
            assert leaf.grad is not None
            assert torch.equal(leaf.grad, expected)


@pytest.mark.parametrize("num_rows", [0, 1])
@pytest.mark.parametrize("num_experts", [1, 3])
def test_no_row_and_one_row(num_rows: int, num_experts: int) -> None:
    inputs = make(num_rows, num_experts)
    fused, plain = gradients(fused_nll, inputs, 0.0), gradients(plain_nll, inputs, 0.0)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("autocast", [False, True])
def test_backward_can_be_repeated_while_the_graph_is_kept(autocast: bool) -> None:
    inputs = make(dtype=torch.float32 if autocast else torch.float64)
    leaves = [part for part in inputs if part.is_floating_point()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, _ = fused_nll(*inputs)
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    second = torch.autograd.grad(2 * total, leaves, retain_graph=True)
    for once, twice in zip(first, second, strict=True):
        assert torch.equal(2 * once, twice)
    first[2].zero_()  # a gradient once given away may be changed
    assert torch.equal(torch.autograd.grad(total, leaves)[2] * 2, second[2])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, leaves)


def test_a_second_derivative_is_refused() -> None:
    inputs = make(num_rows=3)
    total, _ = fused_nll(*inputs)
    (grad,) = torch.autograd.grad(total, inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        grad.sum().backward()


def test_first_and_last_word_as_targets() -> None:
    *front, targets, shift = make()
    targets = torch.where(targets % 2 == 0, 0, 30)
    fused, plain = (gradients(f, (*front, targets, shift), 0.0) for f in (fused_nll, plain_nll))
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wrong", [31, -1, -100])
def test_a_target_outside_the_vocabulary_is_an_error(wrong: int) -> None:
    *front, targets, shift = make()
    targets[5] = wrong
    with pytest.raises((IndexError, RuntimeError), match=r"out of (bounds|range)"):
        fused_nll(*front, targets, shift)


def test_smoothing_a_mixture_is_refused() -> None:
    with pytest.raises(ValueError, match="single softmax"):
        fused_nll(*make(num_experts=3), 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_stay_finite(dtype: torch.dtype) -> None:
    hidden, prior, weight, bias, targets, shift = make(dtype=dtype)
    inputs = ((hidden * 1e4).detach().requires_grad_(), prior, weight, bias, targets, shift)
    fused, plain = gradients(fused_nll, inputs, 0.0), gradients(plain_nll, inputs, 0.0)
    assert all(torch.isfinite(value).all() for value in fused)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [50.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_margins_leave_the_clean_likelihood_alone(dtype: torch.dtype, size: float) -> None:
    *front, shift = make(dtype=dtype)
    shift = shift.abs().detach() + size
    _, clean_nll_N = fused_nll(*front, shift)
    _, expected_N = plain_nll(*front, shift)
    torch.testing.assert_close(clean_nll_N, expected_N)


class _Sizes(TorchDispatchMode):
    """Notes every operator and the largest tensor that any of them returns."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.add(func._schema.name)
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *(t.untyped_storage().nbytes() for t in tensors)])
        return result


@pytest.mark.parametrize("num_rows", [500, 2000])
@pytest.mark.parametrize("autocast", [False, True])
def test_never_allocates_all_logits(
    monkeypatch: pytest.MonkeyPatch, num_rows: int, autocast: bool
) -> None:
    monkeypatch.setattr(module, "MIN_CHUNK_ROWS", 32)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 32 * 3000)
    size, vocab_size = 8, 3000
    inputs = make(num_rows, 1, size, vocab_size, torch.float32)
    sizes = _Sizes()
    with sizes, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, _ = fused_nll(*inputs)
    with sizes:
        total.backward()
    assert "aten::addmv_" in sizes.operators, "the gradients were not computed under observation"
    assert sizes.largest <= 4 * max(32 * vocab_size, vocab_size * size, num_rows * size)
    with sizes:
        plain_nll(*inputs)
    assert sizes.largest >= 4 * num_rows * vocab_size, "the observer sees nothing"
