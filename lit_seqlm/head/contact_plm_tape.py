"""Contacts as ProteinLM's `tape/` predicts them, the path of the model of 200M."""

from torch import Tensor, nn

from lit_seqlm.head.sites import PairHead, in_full
from lit_seqlm.model.layers.pair_blocks import NormLastBlock
from lit_seqlm.model.layers.pairs import ProductDifference


class ContactPlmTape(PairHead):
    """W drop([h_i * h_j, h_i - h_j]), residual blocks, a linear layer, symmetric: `tape/tape/models/modeling_utils.py`.

    A convolution of 1 x 1 is a linear layer on every pair. Padding has no part in convolutions and norms.

    Args:
        hidden_size: of the trunk.
        num_outputs: 2.
        num_channels: of the blocks.
        num_blocks, kernel_size: of the blocks.
        dropout: on the features of a pair.
        batch_norm_eps, batch_norm_momentum: of the norms.
    """

    def __init__(
        self,
        hidden_size: int,
        num_outputs: int,
        num_channels: int,
        num_blocks: int,
        kernel_size: int,
        dropout: float,
        batch_norm_eps: float,
        batch_norm_momentum: float,
    ):
        super().__init__(num_outputs)
        self.features = ProductDifference(hidden_size, num_channels, dropout)
        self.blocks = nn.ModuleList(
            NormLastBlock(num_channels, kernel_size, batch_norm_eps, batch_norm_momentum)
            for _ in range(num_blocks)
        )
        self.out = nn.Linear(num_channels, num_outputs)

    def scores(self, hidden_BTD: Tensor, valid_BTT: Tensor | None) -> Tensor:
        map_BTTC = self.features(hidden_BTD)
        if valid_BTT is not None:
            map_BTTC = map_BTTC.masked_fill(~valid_BTT[..., None], 0.0)
        for block in self.blocks:
            map_BTTC = block(map_BTTC, valid_BTT)
        return in_full(self.out, map_BTTC)
