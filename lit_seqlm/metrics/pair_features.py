"""What a frozen model says of pairs of residues: its attention, corrected, or products of its states."""

# A = layers, H = heads, T = tokens, B = sequences, L = residues of one, D = hidden size, F = features of a pair

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.errors import UserError


def average_product_corrected(maps: np.ndarray) -> np.ndarray:
    """x_ij - x_i. x_.j / x_.. of maps (..., L, L): what a residue has with all others is taken away.

    Dunn et al. 2008, on attention Rao et al. 2020. A map that sums to zero stays as it is.
    """
    rows, columns = maps.sum(-1, keepdims=True), maps.sum(-2, keepdims=True)
    totals = maps.sum((-2, -1), keepdims=True)
    return maps - rows * columns / np.where(totals == 0, 1, totals)


def attention_features(maps_AHTT: np.ndarray, length: int, begin: int) -> np.ndarray:
    """Features (L, L, F) of the pairs of a sequence, one for each head of each layer, the same for both orders.

    Ends and padding are cut away first, then each map is x + x^T, then `average_product_corrected`; as ESM does it
    (Rao et al. 2020).

    Args:
        maps_AHTT: attention weights of one sequence.
        length: its residues.
        begin: tokens before the first one.
    """
    inner = slice(begin, begin + length)
    maps_FLL = maps_AHTT[..., inner, inner].reshape(-1, length, length).astype(np.float64)
    corrected_FLL = average_product_corrected(maps_FLL + maps_FLL.transpose(0, 2, 1))
    return corrected_FLL.transpose(1, 2, 0)


def product_features(states_LD: np.ndarray) -> np.ndarray:
    """h_i * h_j (L, L, D) of a sequence's residues."""
    return states_LD[:, None] * states_LD[None]


@torch.no_grad()
def attention_of(
    trunk: Any, tokens_BT: Tensor, valid_BT: Tensor | None, lengths: list[int], begin: int
) -> Iterator[np.ndarray]:
    """`attention_features` of each sequence of a batch; the trunk should be in eval mode.

    Raises:
        UserError: if the trunk does not tell its attention.
    """
    if not hasattr(trunk, "attention_maps"):
        raise UserError(
            f"{type(trunk).__name__} has no attention to read contacts from. Choose an encoder, such as model=mlm_tiny."
        )
    maps_ABHTT = trunk.attention_maps(tokens_BT, valid_BT).float().cpu().numpy()
    for place, length in enumerate(lengths):
        yield attention_features(maps_ABHTT[:, place], length, begin)
