"""Quasi-recurrent layers: matrix products of a segment at once, then an elementwise recurrence."""

# B = sequences, T = tokens, D = input size, H = hidden size, N = chunks, S = steps in a chunk

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.model.layers.dropout import drop_weight
from lit_seqlm.model.layers.recurrent import RecurrentState


class QRNNLayer(nn.Module):
    """c_t = f_t z_t + (1 - f_t) c_{t-1}, h_t = o_t c_t (Bradbury et al. 2017, "fo-pooling").

    z = tanh, f and o = sigmoid of one linear map of the last `window` inputs.

    Args:
        window: 1, or 2 to read [x_t, x_{t-1}]; then x of the segment before is carried, without
            gradient.
        weight_dropout: rate on the linear map's matrix, drawn once a segment.
    """

    def __init__(self, input_size: int, hidden_size: int, window: int, weight_dropout: float):
        super().__init__()
        assert window in (1, 2)
        self.linear = nn.Linear(window * input_size, 3 * hidden_size)
        self.window, self.weight_dropout = window, weight_dropout

    def forward(
        self, input_BTD: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """State: c (B, H), and for window 2 the last input (B, 1, D)."""
        source_BTD = input_BTD
        if self.window == 2:
            first_B1D = state[1] if state else torch.zeros_like(input_BTD[:, :1])
            before_BTD = torch.cat([first_B1D.to(input_BTD.dtype), input_BTD[:, :-1]], dim=1)
            source_BTD = torch.cat([input_BTD, before_BTD], dim=-1)
        weight = drop_weight(self.linear.weight, self.weight_dropout, self.training)
        mapped = F.linear(source_BTD, weight, self.linear.bias)
        # The recurrence sums over a whole segment: never in half precision.
        mapped = mapped.to(torch.promote_types(mapped.dtype, torch.float32))
        z_BTH, f_BTH, o_BTH = mapped.chunk(3, dim=-1)
        forget_BTH = f_BTH.sigmoid()
        initial_BH = state[0] if state else torch.zeros_like(z_BTH[:, 0])
        cell_BTH = linear_recurrence(1 - forget_BTH, forget_BTH * z_BTH.tanh(), initial_BH)
        carried = (cell_BTH[:, -1], input_BTD[:, -1:].detach())[: self.window]
        return o_BTH.sigmoid() * cell_BTH, carried


class QRNNStack(nn.Module):
    """QRNN layers of the given sizes, window 2 in the first only; `between` as in `LSTMStack`."""

    def __init__(self, sizes: Sequence[int], between: nn.Module, weight_dropout: float):
        super().__init__()
        self.layers = nn.ModuleList(
            QRNNLayer(size_in, size_out, 1 if index else 2, weight_dropout)
            for index, (size_in, size_out) in enumerate(pairwise(sizes))
        )
        self.between = between

    def forward(
        self, input_BTD: Tensor, state: RecurrentState | None
    ) -> tuple[Tensor, RecurrentState]:
        """Returns the last layer's output before dropout, and the state after the last token."""
        new_state: RecurrentState = []
        hidden_BTD = input_BTD
        for index, layer in enumerate(self.layers):
            if index:
                hidden_BTD = self.between(hidden_BTD)
            hidden_BTD, layer_state = layer(hidden_BTD, state[index] if state else None)
            new_state.append(layer_state)
        return hidden_BTD, new_state


def linear_recurrence(decay_BTH: Tensor, input_BTH: Tensor, initial_BH: Tensor) -> Tensor:
    """y_t = decay_t y_{t-1} + input_t from y_0 = initial, elementwise; gives y_1 .. y_T (B, T, H).

    Its gradient is the same recurrence in reversed time, so autograd records one node instead of T.
    """
    return _LinearRecurrence.apply(decay_BTH, input_BTH, initial_BH)


def linear_recurrence_loop(decay_BTH: Tensor, input_BTH: Tensor, initial_BH: Tensor) -> Tensor:
    """The same as one reads it, differentiated by autograd: the oracle."""
    steps, previous_BH = [], initial_BH
    for step in range(input_BTH.size(1)):
        previous_BH = decay_BTH[:, step] * previous_BH + input_BTH[:, step]
        steps.append(previous_BH)
    return torch.stack(steps, dim=1)


class _LinearRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay_BTH: Tensor, input_BTH: Tensor, initial_BH: Tensor) -> Tensor:
        output_BTH = _scan(decay_BTH, input_BTH, initial_BH)
        ctx.save_for_backward(decay_BTH, initial_BH, output_BTH)
        return output_BTH

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_output_BTH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay_BTH, initial_BH, output_BTH = ctx.saved_tensors
        # g_t = d_t + decay_{t+1} g_{t+1}: after the last step nothing comes back.
        later_BTH = torch.cat([decay_BTH[:, 1:], torch.zeros_like(decay_BTH[:, :1])], dim=1)
        d_input_BTH = _scan(
            later_BTH.flip(1), d_output_BTH.flip(1), torch.zeros_like(initial_BH)
        ).flip(1)
        before_BTH = torch.cat([initial_BH[:, None], output_BTH[:, :-1]], dim=1)
        return d_input_BTH * before_BTH, d_input_BTH, d_input_BTH[:, 0] * decay_BTH[:, 0]


def _scan(decay_BTH: Tensor, input_BTH: Tensor, initial_BH: Tensor) -> Tensor:
    """On a CPU step by step; elsewhere in chunks, as small kernels cost more than arithmetic."""
    if input_BTH.device.type == "cpu":
        return scan_steps(decay_BTH, input_BTH, initial_BH)
    return scan_chunks(decay_BTH, input_BTH, initial_BH, math.isqrt(input_BTH.size(1) - 1) + 1)


def scan_steps(decay_BTH: Tensor, input_BTH: Tensor, initial_BH: Tensor) -> Tensor:
    """One fused multiply-add a step, into memory that is there already."""
    output_BTH = torch.empty_like(input_BTH, memory_format=torch.contiguous_format)
    previous_BH = initial_BH
    for step in range(input_BTH.size(1)):
        previous_BH = torch.addcmul(
            input_BTH[:, step], decay_BTH[:, step], previous_BH, out=output_BTH[:, step]
        )
    return output_BTH


def scan_chunks(decay_BTH: Tensor, input_BTH: Tensor, initial_BH: Tensor, chunk: int) -> Tensor:
    """All chunks of S steps side by side from zero, then what enters each: S + T / S steps, not T.

    Only products of decays in [0, 1] occur, never a quotient, so a decay of zero is exact and
    nothing overflows.
    """
    batch_size, length, size = input_BTH.shape
    pad = (0, 0, 0, -length % chunk)
    decay_BNSH = F.pad(decay_BTH, pad, value=1.0).view(batch_size, -1, chunk, size)
    input_BNSH = F.pad(input_BTH, pad).view(batch_size, -1, chunk, size)
    alone_BNSH = torch.empty_like(input_BNSH)
    previous_BNH = torch.zeros_like(input_BNSH[:, :, 0])
    for step in range(chunk):
        previous_BNH = torch.addcmul(
            input_BNSH[:, :, step], decay_BNSH[:, :, step], previous_BNH, out=alone_BNSH[:, :, step]
        )
    kept_BNSH = decay_BNSH.cumprod(dim=2)
    entering_BNH = scan_steps(kept_BNSH[:, :, -1], alone_BNSH[:, :, -1], initial_BH)
    entering_BNH = torch.cat([initial_BH[:, None], entering_BNH[:, :-1]], dim=1)
    output_BNSH = torch.addcmul(alone_BNSH, kept_BNSH, entering_BNH[:, :, None])
    return output_BNSH.flatten(1, 2)[:, :length]
