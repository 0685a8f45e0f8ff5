"""The tokens themselves: what a head reads of a sequence without any encoder (TAPE's one-hot row)."""

# B = sequences, T = tokens, D = words of the vocabulary

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.errors import UserError


class OneHotTrunk(nn.Module):
    """One number a word, 1 for the token that stands there; nothing is learnt, and padding is zero.

    Args:
        vocab_size: words.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.hidden_size = vocab_size
        self.positions = nn.Identity()  # has no table whose length would be a limit

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        hidden_BTD = F.one_hot(tokens_BT, self.hidden_size).float()
        return hidden_BTD if valid_BT is None else hidden_BTD * valid_BT[..., None]


class OneHot(nn.Module):
    """An encoder that only a head can be put on.

    Args:
        vocab_size: words.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.trunk = OneHotTrunk(vocab_size)

    def forward(self, tokens_BT: Tensor, state: Any = None, **conditions: Any) -> Any:
        raise UserError(
            "model=one_hot has nothing to predict words with. Put a head on it: task=label_sites or task=finetune."
        )
