"""Where a token stands: added to its embedding (sinusoidal), or turning queries and keys (rotary).

    positions.embed(embedded_BTD, positions_T)             what the blocks read
    positions.rotation(positions_T, dtype)(queries_BHTF)   what attention compares

Both take positions of shape (T,), or (B, T) where rows differ.
"""

# B = sequences, T = tokens, D = hidden size, H = heads, F = size of a head

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError

Rotation = Callable[[Tensor], Tensor]


class Positions(nn.Module):
    """No positions at all; base of the others, which change what they change."""

    def embed(self, embedded_BTD: Tensor, positions_T: Tensor) -> Tensor:
        return embedded_BTD

    def rotation(self, positions_T: Tensor, dtype: torch.dtype) -> Rotation:
        return _unrotated


class SinusoidalPositions(Positions):
    """sin and cos at wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        _require_even("model.hidden_size", hidden_size)
        self.size = hidden_size

    def embed(self, embedded_BTD: Tensor, positions_T: Tensor) -> Tensor:
        angles = _angles(positions_T, self.size, embedded_BTD.dtype)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1)  # interleaved when flat
        return embedded_BTD + waves.flatten(-2).to(embedded_BTD.dtype)


class RotaryPositions(Positions):
    """Rotate each pair (2i, 2i + 1) of a head by position / 10000^(2i / F).

    A query's product with a key then depends on their distance alone (Su et al. 2021, equation 34).
    No parameters, no table to outgrow.
    """

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.size = hidden_size // num_heads
        _require_even("model.hidden_size / model.num_heads", self.size)

    def rotation(self, positions_T: Tensor, dtype: torch.dtype) -> Rotation:
        angles = _angles(positions_T, self.size, dtype).unsqueeze(-3)  # one for all heads
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

        def rotate(heads_BHTF: Tensor) -> Tensor:
            even, odd = heads_BHTF.unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

        return rotate


POSITIONS: dict[str, Callable[[int, int], Positions]] = {
    "rotary": RotaryPositions,
    "sinusoidal": SinusoidalPositions,
}


def _unrotated(heads_BHTF: Tensor) -> Tensor:
    return heads_BHTF


def _angles(positions_T: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Position over wavelength, (..., size / 2); in float32, as bfloat16 holds no 257."""
    full = torch.promote_types(dtype, torch.float32)
    exponents = torch.arange(0, size, 2, device=positions_T.device, dtype=full) / size
    return positions_T[..., None].to(full) * 10000.0**-exponents


def _require_even(name: str, size: int) -> None:
    if size % 2:
        raise UserError(f"{name} is {size}: positions come in pairs, so it must be even")
