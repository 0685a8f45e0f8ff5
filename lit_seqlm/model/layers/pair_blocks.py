"""Residual blocks of 3 x 3 convolutions on maps of pairs, blind to padding; channels last."""

# B = sequences, T = tokens, C = channels

from torch import Tensor, nn

from lit_seqlm.model.layers.masked_batch_norm import MaskedBatchNorm


class PairConvolution(nn.Conv2d):
    """A square convolution on a map (B, T, T, C) whose places outside `valid_BTT` are zero."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel_size: int, bias: bool):
        super().__init__(num_inputs, num_outputs, kernel_size, padding=kernel_size // 2, bias=bias)

    def forward(self, map_BTTC: Tensor) -> Tensor:
        map_BCTT = map_BTTC.permute(0, 3, 1, 2)
        if map_BCTT.device.type == "cpu":
            map_BCTT = map_BCTT.contiguous()  # the backward pass of channels-last is slower there
        return super().forward(map_BCTT).permute(0, 2, 3, 1)


class NormedConvolution(nn.Module):
    """norm, ReLU, convolution, dropout: rinokeras' `PaddedConv`.

    Args:
        num_inputs, num_outputs: channels.
        kernel_size: of the convolution.
        dropout: on what it gives.
        eps, momentum: of the norm.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        kernel_size: int,
        dropout: float,
        eps: float,
        momentum: float,
    ):
        super().__init__()
        self.norm = MaskedBatchNorm(num_inputs, eps, momentum)
        self.convolution = PairConvolution(num_inputs, num_outputs, kernel_size, bias=True)
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]  # there is one
        self.dropout = nn.Dropout(dropout)

    def forward(self, map_BTTC: Tensor, valid_BTT: Tensor | None) -> Tensor:
        normed_BTTC = self.norm(map_BTTC, valid_BTT).relu()  # zero where it does not count
        return self.dropout(self.convolution(normed_BTTC))


class NormFirstBlock(nn.Module):
    """x + two `NormedConvolution`s: rinokeras' `ResidualBlock`, as TAPE's first code has it."""

    def __init__(
        self, num_channels: int, kernel_size: int, dropout: float, eps: float, momentum: float
    ):
        super().__init__()
        sizes = (num_channels, num_channels, kernel_size)
        self.first = NormedConvolution(*sizes, dropout, eps, momentum)
        self.second = NormedConvolution(*sizes, dropout, eps, momentum)

    def forward(self, map_BTTC: Tensor, valid_BTT: Tensor | None) -> Tensor:
        return map_BTTC + self.second(self.first(map_BTTC, valid_BTT), valid_BTT)


class NormLastBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), He et al. 2016, as ProteinLM's `tape/` has it.

    The norms make zero of what does not count, so zeros stay zeros.
    """

    def __init__(self, num_channels: int, kernel_size: int, eps: float, momentum: float):
        super().__init__()
        sizes = (num_channels, num_channels, kernel_size)
        self.first = PairConvolution(*sizes, bias=False)
        self.first_norm = MaskedBatchNorm(num_channels, eps, momentum)
        self.second = PairConvolution(*sizes, bias=False)
        self.second_norm = MaskedBatchNorm(num_channels, eps, momentum)

    def forward(self, map_BTTC: Tensor, valid_BTT: Tensor | None) -> Tensor:
        inner_BTTC = self.first_norm(self.first(map_BTTC), valid_BTT).relu()
        return (map_BTTC + self.second_norm(self.second(inner_BTTC), valid_BTT)).relu()
