"""Attention by a kernel, in the order of products that is cheaper."""

# B = sequences, T = tokens, C = 2: queries, keys; H = heads, N = B * H, F = size of a head, R = features,
# E = F + 1: values beside a column of ones

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.model.layers.bidirectional_attention import BidirectionalAttention
from lit_seqlm.model.layers.by_head import sums
from lit_seqlm.model.layers.feature_map import KERNELS
from lit_seqlm.model.layers.half_rotary import NoRotation

ORDERS = ("auto", "linear", "quadratic")
GUARDS = ("add", "clamp")


class LinearAttention(BidirectionalAttention):
    """sum_n <phi(q_m), phi(k_n)> v_n / sum_n <phi(q_m), phi(k_n)>, n over the keys that count.

    Katharopoulos et al. 2020, section 3.2, on turned queries and keys as in MoLFormer (Ross et al.
    2022): positions enter numerator and denominator alike, and there is no 1 / sqrt(F). ``linear``
    order sums phi(k) v over the keys first, 4 T R F operations a head; ``quadratic`` makes all
    pairs, 2 T^2 (R + F). The result is the same. Features, sums and the division are in float32 at
    least, also under autocast.

    Args:
        kernel: ``relu_features``, ``arccos`` (their limit for many features; quadratic order only)
            or ``elu_plus_one``.
        num_features, omega_policy, omega_scale: of ``relu_features``; see `ReluFeatures`.
        order: ``linear``, ``quadratic``, or ``auto``: by the number of tokens.
        guard: how a small normaliser z is kept from zero: ``add``, z + eps; ``clamp``, max(z, eps).
        guard_eps: eps in units of the kernel without `omega_scale`.

    Raises:
        UserError: for a word that is not accepted, and for linear order with ``arccos``.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        kernel: str,
        num_features: int,
        omega_policy: str,
        omega_scale: float,
        order: str,
        guard: str,
        guard_eps: float,
    ):
        super().__init__(hidden_size, num_heads)
        for name, word, words in (
            ("kernel", kernel, KERNELS),
            ("order", order, ORDERS),
            ("guard", guard, GUARDS),
        ):
            if word not in words:
                raise UserError(f"model.attention.{name}={word}: {did_you_mean(word, words)}")
        size = hidden_size // num_heads
        self.features = KERNELS[kernel](size, num_features, omega_policy, omega_scale)
        if order == "linear" and not self.features.has_features:
            raise UserError(
                f"model.attention.order=linear: kernel={kernel} is known for pairs only. "
                "Say model.attention.order=quadratic."
            )
        self.order = order if self.features.has_features else "quadratic"
        self.guard, self.guard_eps = guard, guard_eps * self.features.scale**2
        self.break_even = 2 * num_features * size / (num_features + size)  # tokens

    def mix(
        self,
        paired_TBCHF: Tensor,
        values_NTF: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
    ) -> Tensor:
        full = torch.promote_types(values_NTF.dtype, torch.float32)
        with torch.autocast(values_NTF.device.type, enabled=False):
            if self._pairs_are_cheaper(values_NTF.size(1)):
                weights_NTT = self.weights(paired_TBCHF, rotation, valid_BT)
                mixed_NTF = torch.bmm(weights_NTT, values_NTF.to(full))
            else:
                queries_NTR, keys_NTR = self.features(paired_TBCHF.to(full), rotation)
                if valid_BT is not None:
                    keys_NTR = keys_NTR * self._by_head(valid_BT, full)[..., None]
                mixed_NTF = self._linear(queries_NTR, keys_NTR, values_NTF.to(full))
        return mixed_NTF.to(values_NTF.dtype)

    def weights(
        self, paired_TBCHF: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> Tensor:
        full = torch.promote_types(paired_TBCHF.dtype, torch.float32)
        with torch.autocast(paired_TBCHF.device.type, enabled=False):
            pairs_NTT = self.features.similarity(paired_TBCHF.to(full), rotation)
            if valid_BT is not None:
                pairs_NTT = pairs_NTT * self._by_head(valid_BT, full)[:, None]
            return pairs_NTT / self._guarded(pairs_NTT.sum(-1, keepdim=True))

    def _linear(self, queries_NTR: Tensor, keys_NTR: Tensor, values_NTF: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            state_NRF = sums(keys_NTR, values_NTF)
            normaliser_NT1 = torch.bmm(queries_NTR, keys_NTR.sum(1)[..., None])
            return torch.bmm(queries_NTR, state_NRF) / self._guarded(normaliser_NT1)
        # Without gradients one product less; with them its copies cost more than it saves.
        ones_NTE = F.pad(values_NTF, (0, 1), value=1.0)
        mixed_NTE = torch.bmm(queries_NTR, torch.bmm(keys_NTR.mT, ones_NTE))
        return mixed_NTE[..., :-1] / self._guarded(mixed_NTE[..., -1:])

    def _by_head(self, valid_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """1 for a key that counts, else 0, in the order of heads; (N, T)."""
        return valid_BT.to(dtype).repeat_interleave(self.num_heads, 0)

    def _guarded(self, normaliser_NT1: Tensor) -> Tensor:
        if self.guard == "clamp":
            return normaliser_NT1.clamp_min(self.guard_eps)
        return normaliser_NT1 + self.guard_eps

    def _pairs_are_cheaper(self, num_tokens: int) -> bool:
        if self.order == "auto":
            return num_tokens <= self.break_even
        return self.order == "quadratic"
