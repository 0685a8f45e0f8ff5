"""Attention by a kernel, in the order of products that is cheaper."""

# B = sequences, T = tokens, H = heads, N = B * H, F = size of a head, R = features,
# E = F + 1: values beside a column of ones

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.model.layers.bidirectional_attention import BidirectionalAttention, average
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
        queries_TNF: Tensor,
        keys_TNF: Tensor,
        values_TNF: Tensor,
        rotation: NoRotation,
        valid_BT: Tensor | None,
    ) -> Tensor:
        full = torch.promote_types(values_TNF.dtype, torch.float32)
        with torch.autocast(values_TNF.device.type, enabled=False):
            if self._pairs_are_cheaper(len(queries_TNF)):
                weights_NTT = self.weights(queries_TNF, keys_TNF, rotation, valid_BT)
                mixed_TNF = average(weights_NTT, values_TNF.to(full))
            else:
                queries_TNR, keys_TNR = self.features(
                    queries_TNF.to(full), keys_TNF.to(full), rotation
                )
                if valid_BT is not None:
                    keys_TNR = keys_TNR * self._by_head(valid_BT, full).T[..., None]
                mixed_TNF = self._linear(queries_TNR, keys_TNR, values_TNF.to(full))
        return mixed_TNF.to(values_TNF.dtype)

    def weights(
        self, queries_TNF: Tensor, keys_TNF: Tensor, rotation: NoRotation, valid_BT: Tensor | None
    ) -> Tensor:
        full = torch.promote_types(queries_TNF.dtype, torch.float32)
        with torch.autocast(queries_TNF.device.type, enabled=False):
            pairs_NTT = self.features.similarity(queries_TNF.to(full), keys_TNF.to(full), rotation)
            if valid_BT is not None:
                pairs_NTT = pairs_NTT * self._by_head(valid_BT, full)[:, None]
            return pairs_NTT / self._guarded(pairs_NTT.sum(-1, keepdim=True))

    def _linear(self, queries_TNR: Tensor, keys_TNR: Tensor, values_TNF: Tensor) -> Tensor:
        queries_NTR, keys_NRT = queries_TNR.transpose(0, 1), keys_TNR.permute(1, 2, 0)
        if torch.is_grad_enabled():
            state_NRF = torch.bmm(keys_NRT, values_TNF.transpose(0, 1))
            normaliser_NT1 = torch.bmm(queries_NTR, keys_TNR.sum(0)[..., None])
            mixed_NTF = torch.bmm(queries_NTR, state_NRF) / self._guarded(normaliser_NT1)
        else:  # one product less; with gradients, its copies cost more than it saves
            ones_TNE = F.pad(values_TNF, (0, 1), value=1.0)
            mixed_NTE = torch.bmm(queries_NTR, torch.bmm(keys_NRT, ones_TNE.transpose(0, 1)))
            mixed_NTF = mixed_NTE[..., :-1] / self._guarded(mixed_NTE[..., -1:])
        return mixed_NTF.transpose(0, 1)

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
