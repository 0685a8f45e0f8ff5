"""One layer of a bidirectional encoder."""

# B = sequences, T = tokens, D = hidden size, H = heads

from torch import Tensor, nn

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.model.layers.bidirectional_attention import BidirectionalAttention
from lit_seqlm.model.layers.bit_dropout import BitDropout
from lit_seqlm.model.layers.feed_forward import FeedForward
from lit_seqlm.model.layers.half_rotary import NoRotation
from lit_seqlm.model.layers.packing import Packing

FEED_FORWARD_DROPOUTS = ("both", "output")


class EncoderBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): "post-LN" (Vaswani et al. 2017, 5.4).

    Args:
        attention: what mixes tokens.
        feed_forward_size: inner size of the position-wise half.
        dropout: on what each half adds.
        feed_forward_dropout: ``both``, also after the activation; ``output``, only on what it adds.
        layer_norm_eps: under the root of the norms.
    """

    def __init__(
        self,
        attention: BidirectionalAttention,
        hidden_size: int,
        feed_forward_size: int,
        activation: str,
        dropout: float,
        feed_forward_dropout: str,
        layer_norm_eps: float,
    ):
        super().__init__()
        if feed_forward_dropout not in FEED_FORWARD_DROPOUTS:
            raise UserError(
                f"model.feed_forward_dropout={feed_forward_dropout}: "
                f"{did_you_mean(feed_forward_dropout, FEED_FORWARD_DROPOUTS)}"
            )
        inner_dropout = dropout if feed_forward_dropout == "both" else 0.0
        self.attention = attention
        self.attention_norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.feed_forward = FeedForward(hidden_size, feed_forward_size, activation, inner_dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, layer_norm_eps)
        self.feed_forward.dropout = BitDropout(inner_dropout)
        self.dropout = BitDropout(dropout)

    def forward(
        self,
        hidden_TBD: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
        packing: Packing | None = None,
    ) -> Tensor:
        attended_TBD = self.attention(self._read(hidden_TBD), rotation, valid_BT, packing)
        return self._finish(hidden_TBD, attended_TBD)

    def forward_with_maps(
        self, hidden_TBD: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the attention weights (B, H, T, T)."""
        attended_TBD, maps_BHTT = self.attention.forward_with_maps(
            self._read(hidden_TBD), rotation, valid_BT
        )
        return self._finish(hidden_TBD, attended_TBD), maps_BHTT

    def _read(self, hidden_TBD: Tensor) -> Tensor:
        """What attention reads."""
        return hidden_TBD

    def _finish(self, hidden_TBD: Tensor, attended_TBD: Tensor) -> Tensor:
        hidden_TBD = self.attention_norm(hidden_TBD + self.dropout(attended_TBD))
        added_TBD = self.dropout(self.feed_forward(hidden_TBD))
        return self.feed_forward_norm(hidden_TBD + added_TBD)


class PreNormEncoderBlock(EncoderBlock):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): "pre-LN" (Xiong et al. 2020)."""

    def _read(self, hidden_TBD: Tensor) -> Tensor:
        return self.attention_norm(hidden_TBD)

    def _finish(self, hidden_TBD: Tensor, attended_TBD: Tensor) -> Tensor:
        hidden_TBD = hidden_TBD + self.dropout(attended_TBD)
        return hidden_TBD + self.dropout(self.feed_forward(self.feed_forward_norm(hidden_TBD)))
