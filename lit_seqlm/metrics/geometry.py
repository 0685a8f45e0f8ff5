"""How far apart the rows of an output embedding lie, and how many directions they use.

Where a word is recognised in spite of the worst change of its row within the radius, no other row
is nearer than the radius (Wang, Gong and Liu, ICML 2019): the distances to the nearest rows tell.
"""

# V = vocabulary, Q = rows that are asked for, S = rows of one block, D = size of the embedding

import torch
from torch import Tensor

BLOCK_ELEMENTS = 2**24  # distances held at once: 64 MiB


def nearest_neighbour_distances(weight_VD: Tensor, rows_Q: Tensor | None = None) -> Tensor:
    """Euclidean distance from each row (or from `rows_Q`) to the nearest other row, in float64.

    Who is nearest is found with |a|^2 + |b|^2 - 2ab around the mean row, block by block; as that
    form cancels for close rows, the distance itself is then taken from the difference of the two.
    """
    weight_VD = weight_VD.detach().float()
    if len(weight_VD) < 2:
        raise ValueError("an embedding of one row has no nearest neighbours")
    if rows_Q is None:
        rows_Q = torch.arange(len(weight_VD), device=weight_VD.device)
    centred_VD = weight_VD - weight_VD.mean(0)
    norms_V = centred_VD.square().sum(1)
    distances = []
    for rows_S in rows_Q.split(max(1, BLOCK_ELEMENTS // len(weight_VD))):
        squared_SV = torch.addmm(
            norms_V, centred_VD[rows_S], centred_VD.T, alpha=-2
        )  # + |a|^2, the same for all b
        squared_SV[torch.arange(len(rows_S), device=rows_S.device), rows_S] = torch.inf
        nearest_S = squared_SV.argmin(1)
        distances.append((weight_VD[rows_S].double() - weight_VD[nearest_S].double()).norm(dim=1))
    return torch.cat(distances)


def singular_values(weight_VD: Tensor) -> Tensor:
    """All min(V, D) singular values, largest first.

    From the D x D Gram matrix in float64: fast for V much larger than D, exact to about 1e-8 of the
    largest one.
    """
    gram_DD = sum(
        (block.double().T @ block.double() for block in weight_VD.detach().split(2**16)),
        torch.zeros((), dtype=torch.float64, device=weight_VD.device),
    )
    squared = torch.linalg.eigvalsh(gram_DD).flip(0).clamp(min=0)
    return squared[: min(weight_VD.shape)].sqrt()


def effective_rank(singular: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, 2007).

    D when all are equal, 1 when one is alone.
    """
    share = singular / singular.sum()
    return float(torch.exp(torch.special.entr(share).sum()))


def evenly(num_rows: int, at_most: int) -> Tensor:
    """Up to `at_most` row numbers, spread over the vocabulary, which is ranked by frequency."""
    return (
        torch.linspace(0, num_rows - 1, min(num_rows, at_most), dtype=torch.float64).round().long()
    )


def summarise(distances_Q: Tensor, row_norms_Q: Tensor, singular: Tensor) -> dict[str, float]:
    """The numbers to keep; `relative` ones are in units of the row's own norm, like the radius."""
    relative_Q = distances_Q / row_norms_Q.clamp(min=1e-12)
    return {
        "nn_min": float(distances_Q.min()),
        "nn_median": float(distances_Q.median()),
        "nn_mean": float(distances_Q.mean()),
        "nn_relative_min": float(relative_Q.min()),
        "nn_relative_median": float(relative_Q.median()),
        "nn_relative_mean": float(relative_Q.mean()),
        "effective_rank": effective_rank(singular),
        "top_singular_share": float(singular[0] / singular.sum()),
    }
