"""How an encoder knows where a token stands: turned heads, a learned vector, or not at all.

positions.embed(embedded_TBD, packing)     what the blocks read
positions.rotation(length, device, dtype)  what attention compares
"""

# B = sequences, T = tokens, D = hidden size

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.half_rotary import HalfRotary, NoRotation
from lit_seqlm.model.layers.packing import Packing


class NoPositions(nn.Module):
    """A bag of tokens; base of the others, which change what they change."""

    def embed(self, embedded_TBD: Tensor, packing: Packing | None = None) -> Tensor:
        """Of packed sequences, positions begin anew with each."""
        return embedded_TBD

    def rotation(self, length: int, device: torch.device, dtype: torch.dtype) -> NoRotation:
        return NoRotation()


class RotaryHeads(NoPositions):
    """Queries and keys turned by their positions: see `HalfRotary`."""

    def __init__(self, hidden_size: int, num_heads: int, max_len: int):
        super().__init__()
        self.rotary = HalfRotary(hidden_size // num_heads, max_len)

    def rotation(self, length: int, device: torch.device, dtype: torch.dtype) -> NoRotation:
        return self.rotary(length, device, dtype)


def no_room(length: int, most: int, shorter: str) -> str:
    """What is said of a sequence that has more tokens than there are learned positions.

    Args:
        shorter: how to have it shorter.
    """
    return (
        f"a sequence of {length:,} tokens, but model.positions=absolute has learned vectors for {most:,} only. "
        f"{shorter}; or, for a model that is not trained yet, say model.max_len={length} or model.positions=rotary."
    )


class AbsolutePositions(NoPositions):
    """A learned vector for each position, added to the embedding (Devlin et al. 2019)."""

    def __init__(self, hidden_size: int, max_len: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_len, hidden_size))  # as nn.Embedding begins

    def embed(self, embedded_TBD: Tensor, packing: Packing | None = None) -> Tensor:
        length = len(embedded_TBD) if packing is None else packing.longest
        if length > len(self.weight):
            raise UserError(no_room(length, len(self.weight), "Give it shorter ones"))
        if packing is not None:
            return embedded_TBD + self.weight[packing.positions][:, None]
        return embedded_TBD + self.weight[:length, None]


ENCODER_POSITIONS: dict[str, Callable[[int, int, int], NoPositions]] = {
    "rotary": RotaryHeads,
    "absolute": lambda hidden_size, num_heads, max_len: AbsolutePositions(hidden_size, max_len),
    "none": lambda hidden_size, num_heads, max_len: NoPositions(),
}
