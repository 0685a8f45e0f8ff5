"""Ridge regression in closed form, for many strengths at once."""

# N = rows, D = features, K = targets

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def ridge_path(
    states_ND: Tensor, wanted_NK: Tensor, strengths: Sequence[float]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """(strength, weight (K, D), bias (K,)) of each, float64, for the features as they are given.

    argmin_w |y - X w - b|^2 / N + strength |w|^2 on features of zero mean and unit variance; the scaling is put into
    the weights. A missing label (NaN) leaves its row out for its target alone.
    """
    mean_D, std_D = states_ND.double().mean(0), states_ND.double().std(0).clamp(min=1e-12)
    features_ND = (states_ND.double() - mean_D) / std_D
    wanted_NK = wanted_NK.double()
    whole = not wanted_NK.isnan().any()
    columns = [list(range(wanted_NK.size(1)))] if whole else [[k] for k in range(wanted_NK.size(1))]
    solved = [_decomposed(features_ND, wanted_NK[:, targets]) for targets in columns]
    for strength in strengths:
        parts = []
        for values_D, vectors_DD, moments_DK, centre_D, offset_K in solved:
            weight_DK = vectors_DD @ ((vectors_DD.T @ moments_DK) / (values_D + strength)[:, None])
            parts.append((weight_DK, offset_K - centre_D @ weight_DK))
        weight_DK = torch.cat([weight for weight, _ in parts], dim=1) / std_D[:, None]
        bias_K = torch.cat([bias for _, bias in parts]) - mean_D @ weight_DK
        yield strength, weight_DK.T.contiguous(), bias_K


def _decomposed(
    features_ND: Tensor, wanted_NK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Eigenvalues and vectors of the rows' covariance, its products with the targets, and both means."""
    present_N = ~wanted_NK.isnan().any(1)
    features_ND, wanted_NK = features_ND[present_N], wanted_NK[present_N]
    centre_D, offset_K = features_ND.mean(0), wanted_NK.mean(0)
    centred_ND = features_ND - centre_D
    count = len(centred_ND)
    values_D, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / count)
    moments_DK = centred_ND.T @ (wanted_NK - offset_K) / count
    return values_D.clamp(min=0), vectors_DD, moments_DK, centre_D, offset_K
