"""A look inside a memory: which remembered states it takes for its answer at one place of a stream."""

# N = tokens of a stream, D = hidden size, K = neighbours

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_seqlm.cache.kernel import log_kernel
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.errors import UserError
from lit_seqlm.search.exact import measure, search_exact

BLOCK = 65536  # states compared at a time


@dataclass(frozen=True)
class Neighbour:
    """A remembered state.

    Attributes:
        position: in the stream, of the state and of the word after it.
        distance: Euclidean, between the states as the memory compares them (normalised).
        weight: its share of the memory's distribution; NaN where no neighbour weighs anything.
        word: what followed the state, which the memory now expects.
        before, after: the words around `word` in the stream; `after` ends where the future would begin.
    """

    position: int
    distance: float
    weight: float
    word: int
    before: list[int]
    after: list[int]


@torch.no_grad()
def neighbourhood(
    memory: NearestMemory, hidden_ND: Tensor, words_N: Tensor, position: int, width: int
) -> list[Neighbour]:
    """The `memory.k` nearest of the states before `position`, best first; none at position 0.

    The memory gives its kernel and its normalisation; the states are searched exactly, all of them. So the weights of
    the neighbours that were followed by w sum to the memory's own p(w) where it forgets nothing and searches exactly.

    Args:
        hidden_ND: of the whole stream, as `Memory.step` takes them: state n is the one from which words_N[n] is
            predicted.
        words_N: int64.
        position: whose word is to be predicted; its own word and all later ones are not looked at.
        width: words of context on either side.

    Raises:
        UserError: for a position outside the stream.
    """
    if not 0 <= position < len(hidden_ND):
        raise UserError(
            f"position={position}: the stream has {len(hidden_ND):,} states. Take 0 to {len(hidden_ND) - 1:,}."
        )
    if position == 0:
        return []
    states_ND = memory.normalizer(hidden_ND[: position + 1])
    query_1D, past_ND = states_ND[position:], states_ND[:position]
    near = search_exact(query_1D, past_ND, memory.k, memory.metric, BLOCK)
    weight_1K = log_kernel(
        near.measure_MK, memory.kernel, memory.bandwidth, memory.bandwidth_scale, memory.theta
    ).softmax(dim=1)
    distance_1K = measure(query_1D, past_ND, near.slots_MK, "l2").sqrt()
    return [
        Neighbour(
            position=place,
            distance=distance,
            weight=weight,
            word=int(words_N[place]),
            before=words_N[max(0, place - width) : place].tolist(),
            after=words_N[place + 1 : min(place + 1 + width, position)].tolist(),
        )
        for place, distance, weight in zip(
            near.slots_MK[0].tolist(), distance_1K[0].tolist(), weight_1K[0].tolist(), strict=True
        )
    ]
