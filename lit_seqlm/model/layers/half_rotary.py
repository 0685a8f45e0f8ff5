"""Rotary positions in the half layout: entry j of a head turns with entry j + F / 2."""

# T = tokens, F = size of a head, J = F / 2, R = features, L = room of a table

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError


class NoRotation:
    """Leaves heads as they are."""

    def heads(self, heads: Tensor) -> Tensor:
        return heads

    def features(self, omega_FR: Tensor) -> Tensor:
        return omega_FR

    def first(self, length: int) -> "NoRotation":
        """Those of the first positions alone."""
        return self


class HalfRotation(NoRotation):
    """R_m x = (x_1 cos - x_2 sin, x_2 cos + x_1 sin) at position m, with x_1 and x_2 the halves of x."""

    def __init__(self, cos_TJ: Tensor, sin_TJ: Tensor):
        self.cos_TJ, self.sin_TJ = cos_TJ, sin_TJ

    def first(self, length: int) -> "HalfRotation":
        return HalfRotation(self.cos_TJ[:length], self.sin_TJ[:length])

    def heads(self, heads: Tensor) -> Tensor:
        """R_m x of every head x, (T, ..., F)."""
        shape = (len(heads), *[1] * (heads.dim() - 2), -1)
        cos, sin = self.cos_TJ.view(shape), self.sin_TJ.view(shape)
        first, second = heads.chunk(2, dim=-1)
        turned = [first * cos - second * sin, second * cos + first * sin]
        return torch.cat(turned, dim=-1).to(heads.dtype)

    def features(self, omega_FR: Tensor) -> Tensor:
        """R_m^T Omega, (T, F, R): as <R_m x, omega> = <x, R_m^T omega>, a head need not be turned."""
        cos_TJ1, sin_TJ1 = self.cos_TJ[..., None], self.sin_TJ[..., None]
        first_JR, second_JR = omega_FR.to(cos_TJ1.dtype).chunk(2)
        turned = [
            first_JR * cos_TJ1 + second_JR * sin_TJ1,
            second_JR * cos_TJ1 - first_JR * sin_TJ1,
        ]
        return torch.cat(turned, dim=1)


class HalfRotary(nn.Module):
    """Rotations by m w_j at position m, with w_j = 10000^(-2 j / F) (Su et al. 2021, equation 34).

    In the order of entries of GPT-NeoX and MoLFormer; `RotaryPositions` pairs neighbours instead.
    The product of a query with a key depends on their distance alone, and position 0 is left as it
    is. No parameters: the tables are made for `max_len` positions and grow when a longer sequence
    comes. They are kept in float32 at least, as bfloat16 holds no 257.

    Args:
        size: of a head, F.
        max_len: positions to begin with.

    Raises:
        UserError: for an odd size.
    """

    def __init__(self, size: int, max_len: int):
        super().__init__()
        if size % 2:
            raise UserError(
                f"model.hidden_size / model.num_heads is {size}: positions come in pairs, so it must be even"
            )
        self.size, self.max_len = size, max_len
        self._tables = self._make(torch.device("cpu"), torch.float32)

    def forward(self, length: int, device: torch.device, dtype: torch.dtype) -> HalfRotation:
        """The rotations at positions 0 to `length` - 1."""
        full = torch.promote_types(dtype, torch.float32)
        kept = self._tables[0]
        if length > self.max_len or kept.device != device or kept.dtype != full:
            self.max_len = max(length, self.max_len)
            self._tables = self._make(device, full)
        cos_LJ, sin_LJ = self._tables
        return HalfRotation(cos_LJ[:length], sin_LJ[:length])

    def _make(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # A table made while validating must serve training too; one made on no device, any.
        with torch.inference_mode(False), torch.device("cpu"):
            steps_J = torch.arange(0, self.size, 2, dtype=torch.float64) / self.size
            positions_L = torch.arange(self.max_len, dtype=torch.float64)
            angles_LJ = torch.outer(positions_L, 10000.0**-steps_J)
            return angles_LJ.cos().to(device, dtype), angles_LJ.sin().to(device, dtype)
