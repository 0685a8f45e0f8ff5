"""A layer whose weight has one norm."""

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

WHOLE = -1  # what torch's ``dim=None`` means, too


def whole_norm(layer: nn.Module) -> nn.Module:
    """`weight_norm` with one norm for all of the weight, and not one for each row."""
    return weight_norm(layer, dim=WHOLE)
