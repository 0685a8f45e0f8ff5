"""Adversarial softmax: train against the worst small change of the output embedding (Wang et al., ICML 2019)."""

# N = positions, D = hidden size, V = vocabulary

import logging

import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.regularizer.none import NoRegularizer

log = logging.getLogger(__name__)

CHOICES = {
    "radius_mode": ("relative", "absolute"),
    "direction": ("exact", "last_write", "random", "all_words"),
    "gate": ("positive_cosine", "none"),
    "adaptive_scope": ("tail", "both"),
}


class AdversarialRegularizer(NoRegularizer):
    """Inside an epsilon ball the worst change of the target's row is -epsilon h / |h|: a closed form.

    The loss falls with the target's logit, and the logit is linear in the row's change d, so by Cauchy-Schwarz
    the worst d lowers the logit by epsilon |h|: an additive margin, no inner loop and no
    second pass. d is a constant for the gradient, which equals detaching |w_y| alone. The clean loss comes from
    the same pass, except with ``all_words``, where the logged training loss has the other words' rise in it.

    Args:
        radius: a in epsilon = a |w_y| (relative) or epsilon = a (absolute).
        radius_mode: ``relative`` or ``absolute``; growing norms defeat an absolute radius.
        direction: ``exact``, each position against its own worst direction; ``last_write``, all occurrences of a
            word in a batch against the direction of the last one (what the official code does, on CPU order);
            ``random``, uniform directions of the same length; ``all_words``, other words also rise by
            epsilon_j |h|.
        gate: ``positive_cosine`` adds noise only where cos(h, w_y) > 0, as the official code does; ``none``.
        norm_floor: added under the root of every norm.
        detach_weight_norm: false lets the gradient shrink |w_y|, and with it a tied input embedding.
        start_step, warmup_steps, stop_step: radius zero before `start_step`, a linear ramp over `warmup_steps`,
            zero again from `stop_step` on (null: never).
        adaptive_scope: in an adaptive softmax, ``tail`` puts the margin on the word within its cluster only,
            ``both`` on the cluster's logit as well.
    """

    def __init__(
        self,
        radius: float,
        radius_mode: str,
        direction: str,
        gate: str,
        norm_floor: float,
        detach_weight_norm: bool,
        start_step: int,
        warmup_steps: int,
        stop_step: int | None,
        adaptive_scope: str,
    ):
        super().__init__()
        given = {
            "radius_mode": radius_mode,
            "direction": direction,
            "gate": gate,
            "adaptive_scope": adaptive_scope,
        }
        for option, value in given.items():
            if value not in CHOICES[option]:
                raise UserError(
                    f"regularizer.{option}={value}: choose one of {', '.join(CHOICES[option])}"
                )
        if radius < 0:
            raise UserError(f"regularizer.radius={radius}: a radius is zero or more")
        self.radius, self.radius_mode = radius, radius_mode
        self.direction, self.gate = direction, gate
        self.norm_floor, self.detach_weight_norm = norm_floor, detach_weight_norm
        self.start_step, self.warmup_steps, self.stop_step = start_step, warmup_steps, stop_step
        self.adaptive_scope = adaptive_scope
        if not detach_weight_norm and (radius_mode == "absolute" or direction == "last_write"):
            log.warning("regularizer.detach_weight_norm=false has no effect with radius_mode=%s, direction=%s",
                        radius_mode, direction)  # fmt: skip
        self.step = 0

    def set_step(self, step: int) -> None:
        self.step = step

    @property
    def current_radius(self) -> float:
        """The radius at this step of the schedule."""
        since = self.step - self.start_step
        if since < 0 or (self.stop_step is not None and self.step >= self.stop_step):
            return 0.0
        ramp = min(1.0, (since + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.radius * ramp

    def target_margin(self, hidden_ND: Tensor, target_rows_ND: Tensor, targets_N: Tensor) -> Tensor:
        if not self.training or self.current_radius == 0:
            return super().target_margin(hidden_ND, target_rows_ND, targets_N)
        hidden_ND, target_rows_ND = _precise(hidden_ND), _precise(target_rows_ND)
        length_N = self._epsilon(target_rows_ND)
        gate_N = self._gate(hidden_ND, target_rows_ND)
        if self.direction == "last_write":
            last_N = _last_occurrence(targets_N)
            push_ND = (gate_N * length_N / self._norm(hidden_ND))[:, None] * hidden_ND
            return (push_ND.detach()[last_N] * hidden_ND).sum(-1)
        if self.direction == "random":
            noise_ND = torch.randn_like(hidden_ND)
            unit_ND = noise_ND / noise_ND.norm(dim=-1, keepdim=True)
            return gate_N * length_N * (unit_ND * hidden_ND).sum(-1)
        return gate_N * length_N * self._norm(hidden_ND)

    def target_rise(self, hidden_ND: Tensor, target_rows_ND: Tensor) -> Tensor:
        if self.direction != "all_words" or not self.training or self.current_radius == 0:
            return super().target_rise(hidden_ND, target_rows_ND)
        hidden_ND, target_rows_ND = _precise(hidden_ND), _precise(target_rows_ND)
        return self._epsilon(target_rows_ND) * self._norm(hidden_ND)

    def augment(self, hidden_ND: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
        if self.direction != "all_words" or not self.training or self.current_radius == 0:
            return hidden_ND, weight_VD
        # z_j + epsilon_j |h| is one more dimension: [h, |h|] . [w_j, epsilon_j].
        extra_N1 = self._norm(_precise(hidden_ND))[:, None].to(hidden_ND.dtype)
        extra_V1 = self._epsilon(_precise(weight_VD))[:, None].to(weight_VD.dtype)
        return torch.cat([hidden_ND, extra_N1], -1), torch.cat([weight_VD, extra_V1], -1)

    def _epsilon(self, rows_ND: Tensor) -> Tensor:
        if self.radius_mode == "absolute":
            return rows_ND.new_full((rows_ND.size(0),), self.current_radius)
        norm_N = self._norm(rows_ND)
        return self.current_radius * (norm_N.detach() if self.detach_weight_norm else norm_N)

    def _gate(self, hidden_ND: Tensor, rows_ND: Tensor) -> Tensor:
        if self.gate == "none":
            return hidden_ND.new_ones(hidden_ND.size(0))
        return ((hidden_ND * rows_ND).sum(-1) > 0).to(hidden_ND.dtype)

    def _norm(self, rows_ND: Tensor) -> Tensor:
        return (rows_ND.square().sum(-1) + self.norm_floor).sqrt()


def _precise(rows_ND: Tensor) -> Tensor:
    """At least float32: a margin is a small difference, lost in bf16."""
    return rows_ND.to(torch.promote_types(rows_ND.dtype, torch.float32))


def _last_occurrence(targets_N: Tensor) -> Tensor:
    """For each position, the last one that has the same target."""
    _, group_N = targets_N.unique(return_inverse=True)
    position_N = torch.arange(len(targets_N), device=targets_N.device)
    last_G = position_N.new_zeros(len(targets_N)).scatter_reduce_(0, group_N, position_N, "amax")
    return last_G[group_N]
