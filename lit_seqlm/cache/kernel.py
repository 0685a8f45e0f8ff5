"""From measures of nearness to a distribution over words."""

# N = tokens, K = neighbours

import torch
from torch import Tensor

from lit_seqlm.errors import UserError

METRIC = {"dot": "dot", "gaussian": "l2", "epanechnikov": "l2", "rbf": "l2"}  # what a kernel reads
BANDWIDTHS = ("kth", "fixed")
SMALLEST = 1e-12  # of a squared bandwidth: where the k nearest states are equal, all weigh the same


def check_kernel(kernel: str, bandwidth: str) -> str:
    """The metric that a kernel reads; UserError for an unknown word."""
    if kernel not in METRIC:
        raise UserError(f"cache.kernel={kernel}: choose one of {', '.join(METRIC)}.")
    if bandwidth not in BANDWIDTHS:
        raise UserError(f"cache.bandwidth={bandwidth}: choose one of {', '.join(BANDWIDTHS)}.")
    return METRIC[kernel]


def log_kernel(
    measure_NK: Tensor, kernel: str, bandwidth: str, bandwidth_scale: float, theta: float
) -> Tensor:
    """Log of each neighbour's weight, up to a constant of the row; -inf where there is no neighbour.

    With d the distance, x = d / width and the width `theta`, or `bandwidth_scale` times the distance of the row's
    last neighbour (bandwidth ``kth``):

        gaussian      exp(-x^2 / 2)
        epanechnikov  max(0, 1 - x^2)
        rbf           exp(-d^2 / theta)        Khandelwal et al. 2020; theta is their temperature
        dot           exp(theta h.h_i)         Grave, Joulin and Usunier 2017, eq. 3

    Args:
        measure_NK: squared distances, inf where there is none; for ``dot`` inner products, -inf where there is none.
    """
    if kernel == "dot":
        return theta * measure_NK
    if kernel == "rbf":
        return -measure_NK / theta
    if bandwidth == "fixed":
        squared: float | Tensor = theta**2
    else:
        farthest_N1 = measure_NK.masked_fill(measure_NK.isinf(), 0).amax(dim=1, keepdim=True)
        squared = (bandwidth_scale**2 * farthest_N1).clamp(min=SMALLEST)
    x2_NK = measure_NK / squared
    return -x2_NK / 2 if kernel == "gaussian" else torch.log1p(-x2_NK.clamp(max=1))


def log_prob(log_weight_NK: Tensor, match_NK: Tensor) -> Tensor:
    """log of the matching neighbours' share of the weight, (N,); NaN where no neighbour weighs anything.

    The sums run over probabilities, so a share below 1e-38 is told as none.
    """
    share_NK = log_weight_NK.softmax(dim=1)  # a row of -inf alone becomes NaN
    return (share_NK * match_NK).sum(dim=1).log()
