"""One vector for each sequence, by weights that are learnt."""

# B = sequences, T = tokens, D = hidden size

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class AttentionPooling(nn.Module):
    """sum_t softmax_t(drop(w LN(h_t) + b)) h_t over the tokens that are no padding.

    TAPE's first code, `tape/task_models/ComputeClassVector.py`; w is weight-normalised there.

    Args:
        hidden_size: of the tokens.
        dropout: on the scores, before the softmax: a token that is dropped scores 0.
    """

    def __init__(self, hidden_size: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.score = weight_norm(nn.Linear(hidden_size, 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Pooled states (B, D), float32 or wider; zero for a sequence without tokens."""
        if valid_BT is not None:
            hidden_BTD = hidden_BTD.masked_fill(~valid_BT[..., None], 0.0)
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            hidden_BTD = hidden_BTD.to(self.norm.weight.dtype)
            score_BT = self.dropout(self.score(self.norm(hidden_BTD))).squeeze(-1)
            score_BT = score_BT.to(torch.promote_types(score_BT.dtype, torch.float32))
            if valid_BT is not None:
                score_BT = score_BT.masked_fill(~valid_BT, torch.finfo(score_BT.dtype).min)
            return torch.bmm(score_BT.softmax(1)[:, None], hidden_BTD.to(score_BT.dtype)).squeeze(1)
