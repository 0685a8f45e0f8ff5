"""Classes of residues as TAPE's text predicts them: the network of NetSurfP-2.0 (Klausen et al. 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lit_seqlm.head.sites import ResidueHead, blank


class ResidueNetSurfP(ResidueHead):
    """Wide convolutions beside their input, bidirectional LSTMs, one linear layer.

    Our reading of the text: each convolution sees the states themselves, a ReLU follows, and what they give is
    concatenated with these states. TAPE's first code (`tape/task_models/NetsurfModel.py`) puts one convolution on
    the other, with batch norms, and concatenates the states too. LSTMs run over packed sequences.

    Args:
        hidden_size: of the trunk.
        num_outputs: classes.
        num_filters: of each convolution.
        kernel_sizes: tokens that each convolution sees, odd.
        lstm_size: of each direction.
        num_layers: of LSTMs.
    """

    def __init__(
        self,
        hidden_size: int,
        num_outputs: int,
        num_filters: int,
        kernel_sizes: Sequence[int],
        lstm_size: int,
        num_layers: int,
    ):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden_size, num_filters, size, padding=size // 2) for size in kernel_sizes
        )
        self.lstm = nn.LSTM(
            hidden_size + num_filters * len(kernel_sizes),
            lstm_size,
            num_layers,
            batch_first=True,
            bidirectional=True,
        )
        self.out = nn.Linear(2 * lstm_size, num_outputs)

    def logits(self, hidden_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        seen = [layer(hidden_BTD.transpose(1, 2)).relu() for layer in self.convolutions]
        features_BTD = torch.cat([hidden_BTD, *(one.transpose(1, 2) for one in seen)], -1)
        if valid_BT is None:
            return self.out(self.lstm(features_BTD)[0])
        lengths_B = valid_BT.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            blank(features_BTD, valid_BT), lengths_B, batch_first=True, enforce_sorted=False
        )
        states_BTD, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=valid_BT.size(1)
        )
        return self.out(states_BTD)
