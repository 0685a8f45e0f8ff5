"""What every model returns, so that objectives, caches and generation need not know which one it is."""

# B = sequences, T = tokens, D = hidden size

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class Output:
    """One forward pass.

    Attributes:
        hidden_BTD: what enters the output embedding, after dropout.
        state: whatever the model needs to go on with the next tokens (``None``: nothing); opaque to callers,
            who hand it back, after ``model.detach(state)`` where a gradient must not reach the past.
        raw_BTD: the last layer's output before dropout: the key of every cache, and the input of TAR.
    """

    hidden_BTD: Tensor
    state: Any
    raw_BTD: Tensor
