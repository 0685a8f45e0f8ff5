"""Classes of residues as TAPE's second code predicts them, and ProteinLM's `tape/` too."""

from torch import Tensor, nn

from lit_seqlm.head.sites import ResidueHead, blank
from lit_seqlm.model.layers.masked_batch_norm import MaskedBatchNorm
from lit_seqlm.model.layers.whole_norm import whole_norm


class ResidueTapeTorch(ResidueHead):
    """BN, convolution, ReLU, dropout, convolution: `SimpleConv` of `tape/models/modeling_utils.py`.

    Each convolution has one norm for the whole of its weight (torch's ``dim=None``). The norm of the batch is over its
    tokens, not over padding as well.

    Args:
        hidden_size: of the trunk.
        num_outputs: classes.
        inner_size: channels between the convolutions.
        kernel_size, out_kernel_size: tokens that each convolution sees, odd.
        dropout: after the ReLU.
        batch_norm_eps, batch_norm_momentum: of the norm of the batch.
    """

    def __init__(
        self,
        hidden_size: int,
        num_outputs: int,
        inner_size: int,
        kernel_size: int,
        out_kernel_size: int,
        dropout: float,
        batch_norm_eps: float,
        batch_norm_momentum: float,
    ):
        super().__init__()
        self.norm = MaskedBatchNorm(hidden_size, batch_norm_eps, batch_norm_momentum)
        self.dropout = nn.Dropout(dropout)
        inner = nn.Conv1d(hidden_size, inner_size, kernel_size, padding=kernel_size // 2)
        out = nn.Conv1d(inner_size, num_outputs, out_kernel_size, padding=out_kernel_size // 2)
        self.inner, self.out = whole_norm(inner), whole_norm(out)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        normed_BTD = self.norm(hidden_BTD, valid_BT)
        inner_BTD = self.inner(normed_BTD.transpose(1, 2)).relu().transpose(1, 2)
        inner_BTD = blank(self.dropout(inner_BTD), valid_BT)
        return self.out(inner_BTD.transpose(1, 2)).transpose(1, 2)
