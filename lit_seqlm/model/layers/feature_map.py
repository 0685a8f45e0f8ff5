"""Kernels of linear attention: phi(R_m q) . phi(R_n k) in place of exp(q . k), R turning by position.

    kernel(paired_TBCHF, rotation)             phi of queries and keys: for linear order
    kernel.similarity(paired_TBCHF, rotation)  of all their pairs: for quadratic order
    kernel.scale                               c, where the similarity is c^2 times the formula's

Queries and keys come side by side, as they leave their projection.
"""

# B = sequences, T = tokens, C = 2: queries, keys; H = heads, N = B * H, F = size of a head, R = features

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.model.layers.by_head import by_head, pairs, rectified
from lit_seqlm.model.layers.half_rotary import NoRotation

POLICIES = ("fixed", "redraw_train", "redraw_always")


class Kernel(nn.Module):
    """A similarity of queries and keys that is never negative."""

    has_features = True
    scale = 1.0

    def forward(self, paired_TBCHF: Tensor, rotation: NoRotation) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def similarity(self, paired_TBCHF: Tensor, rotation: NoRotation) -> Tensor:
        """Of every query with every key of its head, (N, T, T)."""
        queries_NTR, keys_NTR = self(paired_TBCHF, rotation)
        return pairs(queries_NTR, keys_NTR)


class ReluFeatures(Kernel):
    """phi(x) = relu(x Omega), with the same Omega for queries, keys and all heads of a layer.

    Generalised random features of Choromanski et al. 2021 (section 2.2, drawn orthogonally as in
    2.4), as MoLFormer uses them. A constant factor on Omega leaves the attention as it is; `scale`
    keeps the features, with columns of Omega as long as sqrt(F), in half precision's range. The
    buffer `omega` (F, R) holds Omega without the factor.

    Args:
        size: of a head, F.
        num_features: columns of Omega, R; fewer than 2 sqrt(F) make weak normalisers likely.
        policy: ``fixed``, drawn once or loaded; ``redraw_train``, anew at every forward in training
            mode; ``redraw_always``, at every forward, so that two calls differ.
        scale: the factor, c.

    Raises:
        UserError: for a policy that does not exist, numbers that are not positive, and an Omega of
            zeros in a state to load.
    """

    omega: Tensor

    def __init__(self, size: int, num_features: int, policy: str, scale: float):
        super().__init__()
        if policy not in POLICIES:
            raise UserError(
                f"model.attention.omega_policy={policy}: {did_you_mean(policy, POLICIES)}"
            )
        if num_features < 1 or scale <= 0:
            raise UserError(
                f"model.attention.num_features={num_features}, omega_scale={scale}: both must be positive"
            )
        self.policy, self.scale = policy, scale
        self.register_buffer("omega", draw_omega(size, num_features))
        self.register_load_state_dict_pre_hook(refuse_zero_omega)

    def forward(self, paired_TBCHF: Tensor, rotation: NoRotation) -> tuple[Tensor, Tensor]:
        if self.policy == "redraw_always" or (self.policy == "redraw_train" and self.training):
            self.redraw()
        omega = rotation.features(self.omega * self.scale)  # (F, R), or (T, F, R) by position
        return rectified(paired_TBCHF, omega.to(paired_TBCHF.dtype))

    def redraw(self) -> None:
        """A new Omega; the old one is left to the backward passes that still need it."""
        with torch.inference_mode(False), torch.no_grad():
            size, num_features = self.omega.shape
            self.omega = draw_omega(size, num_features, self.omega.device).to(self.omega)


class EluPlusOne(Kernel):
    """phi(x) = elu(x) + 1, entry by entry (Katharopoulos et al. 2020, equation 7)."""

    def forward(self, paired_TBCHF: Tensor, rotation: NoRotation) -> tuple[Tensor, Tensor]:
        return by_head(F.elu(rotation.heads(paired_TBCHF)) + 1)


class ArcCosine(Kernel):
    """E[relu(w . a) relu(w . b)] over Gaussian w: what `ReluFeatures` tends to with many features.

    |a| |b| (sin t + (pi - t) cos t) / (2 pi), t the angle between a and b: the arc-cosine kernel of
    first order (Cho and Saul 2009, equation 6). Deterministic, positive, and for pairs only.
    """

    has_features = False

    def similarity(self, paired_TBCHF: Tensor, rotation: NoRotation) -> Tensor:
        queries_NTF, keys_NTF = by_head(rotation.heads(paired_TBCHF))
        lengths_NTT = queries_NTF.norm(dim=-1)[:, :, None] * keys_NTF.norm(dim=-1)[:, None]
        positive_NTT = lengths_NTT.clamp_min(torch.finfo(lengths_NTT.dtype).tiny)
        cosine_NTT = torch.bmm(queries_NTF, keys_NTF.mT) / positive_NTT
        return lengths_NTT * _Arc.apply(cosine_NTT) / (2 * math.pi)


class _Arc(torch.autograd.Function):
    """sin t + (pi - t) c with c = cos t. Its derivative by c is pi - t, though that of t is infinite at 1."""

    @staticmethod
    def forward(ctx: Any, cosine_NTT: Tensor) -> Tensor:
        cosine_NTT = cosine_NTT.clamp(-1, 1)
        obtuse_NTT = math.pi - torch.acos(cosine_NTT)
        ctx.save_for_backward(obtuse_NTT)
        return torch.sqrt(1 - cosine_NTT.square()) + obtuse_NTT * cosine_NTT

    @staticmethod
    def backward(ctx: Any, gradient_NTT: Tensor) -> Tensor:
        (obtuse_NTT,) = ctx.saved_tensors
        return gradient_NTT * obtuse_NTT


def draw_omega(size: int, num_features: int, device: torch.device | None = None) -> Tensor:
    """Columns as long as Gaussian vectors, orthogonal within each block of F of them; (F, R).

    G of F x F standard normals, Q from its QR decomposition, column i = Q_i |G_i| with row i of G;
    as many independent blocks as it takes, and cut. From torch's global random numbers.
    """
    blocks = []
    for _ in range(-(-num_features // size)):
        gaussian_FF = torch.randn(size, size, device=device)
        basis_FF = torch.linalg.qr(gaussian_FF).Q
        blocks.append(basis_FF * gaussian_FF.norm(dim=1))
    return torch.cat(blocks, dim=1)[:, :num_features].contiguous()


def refuse_zero_omega(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before loading: zeros say that the saved model never ran, and so never drew its features."""
    omega_FR = state_dict.get(f"{prefix}omega")
    if omega_FR is not None and not omega_FR.any():
        raise UserError(
            f"{prefix}omega is all zeros, so every attention weight would be 0 / 0: these weights "
            "were saved before their first forward pass. Take a later checkpoint."
        )


KERNELS: dict[str, Callable[[int, int, str, float], Kernel]] = {
    "relu_features": ReluFeatures,
    "arccos": lambda size, num_features, policy, scale: ArcCosine(),
    "elu_plus_one": lambda size, num_features, policy, scale: EluPlusOne(),
}
