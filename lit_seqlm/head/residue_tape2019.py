"""Classes of residues as TAPE's first code predicts them (Rao et al. 2019)."""

from torch import Tensor, nn

from lit_seqlm.head.sites import ResidueHead, blank


class ResidueTape2019(ResidueHead):
    """LN, convolution, ReLU, convolution: `tape/task_models/AminoAcidClassPredictor.py`.

    The paper's text has the head of NetSurfP-2.0 in its place: see `ResidueNetSurfP`.

    Args:
        hidden_size: of the trunk.
        num_outputs: classes.
        inner_size: channels between the convolutions.
        kernel_size, out_kernel_size: tokens that each convolution sees, odd.
    """

    def __init__(
        self,
        hidden_size: int,
        num_outputs: int,
        inner_size: int,
        kernel_size: int,
        out_kernel_size: int,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.inner = nn.Conv1d(hidden_size, inner_size, kernel_size, padding=kernel_size // 2)
        self.out = nn.Conv1d(inner_size, num_outputs, out_kernel_size, padding=out_kernel_size // 2)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        normed_BTD = blank(self.norm(hidden_BTD), valid_BT)
        inner_BTD = self.inner(normed_BTD.transpose(1, 2)).relu().transpose(1, 2)
        return self.out(blank(inner_BTD, valid_BT).transpose(1, 2)).transpose(1, 2)
