"""The fused loss against losses that hold all N x V logits: time, peak memory, and what allocation costs."""

# N = positions, D = hidden size, V = vocabulary

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from measure import (
    Comparison,
    Work,
    Worker,
    by_turns,
    page_faults,
    peak_megabytes,
    seconds,
)
from rich.progress import track
from torch import Tensor

from lit_seqlm.model.layers.fused_nll import fused_nll

TARGET = 0.8
FULL, FUSED = "full logits", "fused"
BUFFER_BYTES = 56_000_000  # the logits of 1400 positions over 10,000 words
FILLS = 8  # a turn
FRESH, REUSED, KEPT = "fresh 56 MB tensors", "one 56 MB tensor again", ", freed memory kept"


class Shape(NamedTuple):
    """A corpus's vocabulary, a usual hidden size, the positions of one batch, and the batches for peak memory."""

    corpus: str
    vocab_size: int
    hidden_size: int
    num_rows: int
    memory_rows: tuple[int, ...]
    repetitions: int
    budget: float  # seconds for the comparison of all losses


SHAPES = (
    Shape("PTB", 10_000, 200, 1400, (350, 1400, 5600), 20, 20.0),
    Shape("WikiText-2", 33_278, 400, 1400, (350, 1400, 2800), 8, 40.0),
    Shape("WikiText-103", 267_735, 400, 512, (128, 512, 1024), 4, 70.0),
)


def full_logits(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden_ND, weight_VD, bias_V), targets_N)


def fused(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    zeros_N1 = hidden_ND.new_zeros(hidden_ND.size(0), 1)
    total, _ = fused_nll(hidden_ND[:, None], zeros_N1, weight_VD, bias_V, targets_N, zeros_N1)
    return total / targets_N.numel()


def torchs_own(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    return F.linear_cross_entropy(hidden_ND, weight_VD, targets_N, linear_bias=bias_V)


def torchs_chunks(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor, targets_N: Tensor
) -> Tensor:
    options: Any = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(
        hidden_ND, weight_VD, targets_N, linear_bias=bias_V, options=options
    )


LOSSES: dict[str, Callable[..., Tensor]] = {FULL: full_logits, FUSED: fused}
if hasattr(F, "linear_cross_entropy"):  # from torch 2.13 on
    LOSSES |= {"torch's linear_cross_entropy": torchs_own, "the same, in its chunks": torchs_chunks}


def peers(shape: Shape) -> list[str]:
    """Torch's automatic chunks take ten times as long as anything else at the largest vocabulary: left out there."""
    return [
        name for name in LOSSES if LOSSES[name] is not torchs_chunks or shape.vocab_size < 10**5
    ]


def forward_and_backward(name: str, vocab_size: int, hidden_size: int, num_rows: int) -> Work:
    torch.manual_seed(0)
    weight_VD = torch.empty(vocab_size, hidden_size).uniform_(-0.1, 0.1).requires_grad_()
    bias_V = torch.zeros(vocab_size, requires_grad=True)
    hidden_ND = torch.empty(num_rows, hidden_size).uniform_(-1, 1).requires_grad_()
    targets_N = torch.randint(vocab_size, (num_rows,))
    loss = LOSSES[name]

    def work() -> None:
        hidden_ND.grad = weight_VD.grad = bias_V.grad = None
        loss(hidden_ND, weight_VD, bias_V, targets_N).backward()

    return work


def loss_times(quick: bool) -> list[Comparison]:
    """Forward and backward, under glibc's own malloc and under the program's."""
    rows = []
    for shape in SHAPES:
        num_rows = shape.num_rows // 8 if quick else shape.num_rows
        sizes = (shape.vocab_size, shape.hidden_size, num_rows)
        repetitions = 2 if quick else shape.repetitions
        where = f"V {sizes[0]:,}, D {sizes[1]}, N {num_rows:,}"
        for keep, memory in ((False, ""), (True, KEPT)):
            names = [FULL, FUSED] if keep else peers(shape)
            workers = {n: Worker(forward_and_backward, n, *sizes, keep_memory=keep) for n in names}
            budget = shape.budget * len(names) / len(LOSSES)
            samples = by_turns(workers, repetitions, f"loss, {where}{memory}", budget)
            full = seconds(samples.pop(FULL))
            for name, times in samples.items():
                target = TARGET if name == FUSED else None
                against = f"{FULL}, {where}{memory}"
                rows.append(Comparison.of(name, against, seconds(times), full, target))
    return rows


def peak_memory(quick: bool) -> list[dict[str, Any]]:
    """Megabytes above the inputs, for several N; the gradients of weight and bias are in all of them."""
    jobs = [
        (shape, num_rows, name)
        for shape in (SHAPES[:1] if quick else SHAPES)
        for num_rows in shape.memory_rows
        for name in peers(shape)
        if LOSSES[name] is not torchs_own  # full logits by another name
    ]
    found = []
    for shape, num_rows, name in track(jobs, description="peak memory of the loss"):
        sizes = (shape.vocab_size, shape.hidden_size, num_rows)
        megabytes = peak_megabytes(forward_and_backward, name, *sizes)
        found.append(
            {
                "loss": name,
                "vocab_size": shape.vocab_size,
                "hidden_size": shape.hidden_size,
                "num_rows": num_rows,
                "megabytes": round(megabytes, 1),
                "logits_megabytes": round(4 * shape.vocab_size * num_rows / 2**20, 1),
                "weight_megabytes": round(4 * shape.vocab_size * shape.hidden_size / 2**20, 1),
            }
        )
    return found


def fresh_buffers() -> Work:
    def work() -> None:
        for _ in range(FILLS):
            torch.empty(BUFFER_BYTES // 4).fill_(1.0)

    return work


def reused_buffer() -> Work:
    buffer = torch.empty(BUFFER_BYTES // 4)

    def work() -> None:
        for _ in range(FILLS):
            buffer.fill_(1.0)

    return work


def allocation(quick: bool) -> tuple[list[Comparison], dict[str, int]]:
    """What fresh pages cost: a large tensor by itself, and within a loss."""
    repetitions = 5 if quick else 15
    sizes = SHAPES[0].vocab_size, SHAPES[0].hidden_size, SHAPES[0].num_rows
    workers = {
        FRESH: Worker(fresh_buffers),
        f"{FRESH}{KEPT}": Worker(fresh_buffers, keep_memory=True),
        REUSED: Worker(reused_buffer),
    } | {
        f"{name}{KEPT * keep}": Worker(forward_and_backward, name, *sizes, keep_memory=keep)
        for name in (FULL, FUSED)
        for keep in (False, True)
    }
    samples = by_turns(workers, repetitions, "memory allocation")
    pairs = [(FRESH, REUSED), (f"{FRESH}{KEPT}", REUSED)]
    pairs += [(f"{name}{KEPT}", name) for name in (FULL, FUSED)]
    rows = [Comparison.of(a, b, seconds(samples[a]), seconds(samples[b])) for a, b in pairs]
    return rows, {name: page_faults(turns) for name, turns in samples.items()}
