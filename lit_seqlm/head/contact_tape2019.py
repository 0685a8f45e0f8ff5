"""Contacts as TAPE's first code predicts them (Rao et al. 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lit_seqlm.head.sites import PairHead, in_full
from lit_seqlm.model.layers.pair_blocks import NormedConvolution, NormFirstBlock


class ContactTape2019(PairHead):
    """z = W h, [z_i, z_j], a convolution of 1 x 1, residual blocks, one score s, symmetric.

    `tape/task_models/ResidueResidueContactPredictor.py`, with what rinokeras puts into it: each convolution comes after
    a batch norm and a ReLU, and dropout follows it; dense layers are weight-normalised. The logits (0, s) make of
    the cross-entropy of two classes the sigmoid cross-entropy of s. Padding has no part in convolutions and norms.

    Args:
        hidden_size: of the trunk.
        num_outputs: 2.
        num_channels: of z and of the blocks.
        num_blocks, kernel_size: of the blocks.
        dropout: after each convolution.
        batch_norm_eps, batch_norm_momentum: of the norms, torch's way to count: Keras' momentum is one minus it.
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
        regular = (dropout, batch_norm_eps, batch_norm_momentum)
        self.dense = weight_norm(nn.Linear(hidden_size, num_channels))
        self.mix = NormedConvolution(2 * num_channels, num_channels, 1, *regular)
        self.blocks = nn.ModuleList(
            NormFirstBlock(num_channels, kernel_size, *regular) for _ in range(num_blocks)
        )
        self.out = weight_norm(nn.Linear(num_channels, 1))

    def scores(self, hidden_BTD: Tensor, valid_BTT: Tensor | None) -> Tensor:
        small_BTC = self.dense(hidden_BTD)
        shape = (-1, -1, small_BTC.size(1), -1)
        left_BTTC = small_BTC[:, :, None].expand(shape)
        map_BTTC = self.mix(torch.cat([left_BTTC, left_BTTC.transpose(1, 2)], -1), valid_BTT)
        for block in self.blocks:
            map_BTTC = block(map_BTTC, valid_BTT)
        return F.pad(in_full(self.out, map_BTTC), (1, 0))  # of no contact: 0
