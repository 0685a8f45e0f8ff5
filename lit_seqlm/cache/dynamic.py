"""Dynamic evaluation: the weights themselves remember (Krause, Kahembwe, Murray and Renals, 2018).

The official code (`dynamiceval.py` of benkrause/dynamic-evaluation, and its copy in zihangdai/mos)
differentiates the MEAN loss over the tokens of a training batch or a segment, also of a shorter last
one, and its published learning rates are for that. So `prepare` and `adapt` take means.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lit_seqlm.errors import DivergedError, UserError, did_you_mean

RULES = ("rms", "sgd")
STAT_SCALES = ("mean", "sum")


class DynamicEvaluation:
    """Gradient steps on what has been scored, pulled back to the trained weights (arXiv 1709.07432).

    With g_b the gradient of training batch b of B_s, per weight, and theta0 the trained weights::

        S = sqrt(mean_b g_b^2)        r = min(S / mean over tensors of mean(S), 1 / decay)
        theta += decay r (theta0 - theta) - lr g / (S + floor)             after each segment

    `stat_scale=sum` is what the MoS code and the first official code do: S = sqrt(sum_b g_b^2), and
    r divided by the SUM over tensors. It does the same as `mean` with lr and floor divided by
    sqrt(B_s) and decay divided by the number of tensors.

    Every trainable tensor counts once, also one that no gradient reaches. Four copies of the weights
    are held, with `rule=sgd` one.

    Args:
        rule: ``rms`` as above; ``sgd``: S = r = 1, floor = 0, no statistics.
        stat_scale: ``mean`` or ``sum``.
        lr, decay, floor: eta, lambda and epsilon of the paper.
        segment: tokens between two updates, in the statistics too; the caller cuts.
        stats_batch: columns of the training text for the statistics; the caller makes them.
        stats_max_batches: of the statistics (null: all of the training text).

    Raises:
        UserError: for values that cannot be.
    """

    def __init__(
        self,
        rule: str,
        stat_scale: str,
        lr: float,
        decay: float,
        floor: float,
        segment: int,
        stats_batch: int,
        stats_max_batches: int | None,
    ):
        for key, word, accepted in (("rule", rule, RULES), ("stat_scale", stat_scale, STAT_SCALES)):
            if word not in accepted:
                raise UserError(f"cache.{key}={word}: {did_you_mean(word, accepted)}")
        sizes = {
            "segment": segment,
            "stats_batch": stats_batch,
            "stats_max_batches": stats_max_batches,
        }
        for key, size in sizes.items():
            if size is not None and size < 1:
                raise UserError(f"cache.{key}={size}: it must be at least 1.")
        self.rule, self.stat_scale, self.floor = rule, stat_scale, floor
        self.segment, self.stats_batch = segment, stats_batch
        self.stats_max_batches = stats_max_batches
        self.weights: dict[str, Tensor] = {}  # the model's own, by name
        self.prior: dict[str, Tensor] = {}
        self.statistic: dict[str, Tensor] = {}
        self.pull: dict[str, Tensor] = {}  # decay r
        self.step: dict[str, Tensor] = {}  # lr / (S + floor)
        self.retune(lr, decay)

    @property
    def memories(self) -> dict[str, Any]:
        return {}  # nothing to mix: the static model itself changes

    def describe(self) -> dict[str, Any]:
        """Its options, for the evaluation card."""
        names = ("rule", "stat_scale", "lr", "decay", "floor", "segment", "stats_batch")
        return {name: getattr(self, name) for name in names}

    @property
    def adapter(self) -> "DynamicEvaluation":
        return self

    @torch.no_grad()
    def attach(self, model: nn.Module) -> None:
        """Take the weights of `model` as theta0; a model attached before gets its own back first.

        Raises:
            UserError: if it has nothing to adapt.
        """
        self.restore()
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.weights:
            raise UserError(
                "cache=dynamic adapts weights, and this model has none that can be trained. Use a "
                "trained model, or another cache."
            )
        self.prior = {name: weight.clone() for name, weight in self.weights.items()}
        self.statistic, self.pull, self.step = {}, {}, {}

    def prepare(self, model: nn.Module, losses: Iterable[Tensor]) -> None:
        """Attach to a trained model and collect S.

        Args:
            losses: the mean loss over the tokens of each training batch, a scalar with its graph;
                the model in evaluation mode, `stats_batch` columns, segments of `segment` tokens,
                the carried state detached. Drawn one at a time, at most `stats_max_batches`; none
                with `rule=sgd`.

        Raises:
            UserError: without a batch, or where the gradients are zero or not finite.
        """
        self.attach(model)
        if self.rule == "rms":
            self._collect(itertools.islice(losses, self.stats_max_batches))
        self._derive()

    def retune(self, lr: float, decay: float) -> None:
        """Go on from theta0 with another learning rate and decay: S is kept, so a grid needs it once.

        Raises:
            UserError: for values that cannot be.
        """
        if lr < 0 or decay < 0:
            key, value = ("lr", lr) if lr < 0 else ("decay", decay)
            raise UserError(f"cache.{key}={value}: it must be at least 0.")
        if self.rule == "sgd" and decay > 1:
            raise UserError(f"cache.decay={decay}: with cache.rule=sgd it must be at most 1.")
        if self.rule == "rms" and self.floor <= 0:
            raise UserError(f"cache.floor={self.floor}: it must be more than 0.")
        self.lr, self.decay = lr, decay
        self.restore()
        if self.statistic:
            self._derive()

    def adapt(self, loss: Tensor) -> None:
        """One update, after the segment's loss was counted.

        Args:
            loss: the mean over the segment's tokens, a scalar with its graph, made with the weights
                as they are now.

        Raises:
            DivergedError: if the loss or a gradient is not finite; the weights stay as they were.
        """
        assert self.prior, "prepare() comes before adapt()"
        gradients = dict(zip(self.weights, self._gradients(loss), strict=True))
        given = [gradient for gradient in gradients.values() if gradient is not None]
        if not torch.stack([loss.detach(), *(g.sum() for g in given)]).isfinite().all():
            raise DivergedError(
                f"cache=dynamic: a segment's loss ({loss.item():g}) or its gradient is not finite. "
                f"Try a smaller cache.lr ({self.lr:g} now)."
            )
        with torch.no_grad():
            for name, weight in self.weights.items():
                gradient, rms = gradients[name], self.rule == "rms"
                weight.lerp_(self.prior[name], self.pull[name] if rms else self.decay)
                if gradient is not None and rms:
                    weight.addcmul_(gradient, self.step[name], value=-1.0)
                elif gradient is not None:
                    weight.add_(gradient, alpha=-self.lr)

    @torch.no_grad()
    def restore(self) -> None:
        """The trained weights again, bit for bit."""
        for name, weight in self.weights.items():
            weight.copy_(self.prior[name])

    reset = restore  # before each split

    def state_dict(self) -> dict[str, Tensor]:
        """The weights as they are now, theta0 and S: what a killed evaluation goes on from."""
        parts = {"weight": self.weights, "prior": self.prior, "statistic": self.statistic}
        return {
            f"{part}.{name}": tensor.detach().clone()
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken; `attach` comes first, `prepare` is not needed.

        Raises:
            UserError: for the state of another model or another `rule`; nothing is changed then.
        """
        assert self.prior, "attach() comes before load_state_dict()"
        wanted = [("weight", self.weights), ("prior", self.prior)]
        wanted += [("statistic", self.weights)] if self.rule == "rms" else []
        shapes = {f"{part}.{name}": w.shape for part, ws in wanted for name, w in ws.items()}
        wrong = sorted(shapes.keys() ^ state.keys()) or sorted(
            key for key, shape in shapes.items() if state[key].shape != shape
        )
        if wrong:
            raise UserError(
                f"the saved dynamic evaluation does not fit this model and cache.rule={self.rule}: "
                f"{wrong[0]} is missing, unknown or of another shape. Start anew with resume=never."
            )
        for name, weight in self.weights.items():
            weight.copy_(state[f"weight.{name}"])
            self.prior[name].copy_(state[f"prior.{name}"])
            if self.rule == "rms":
                self.statistic[name] = state[f"statistic.{name}"].to(weight, copy=True)
        self._derive()

    def _gradients(self, loss: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)

    def _collect(self, losses: Iterable[Tensor]) -> None:
        """S = sqrt(mean or sum over batches of the squared gradient); each batch counts the same."""
        squares = {name: torch.zeros_like(prior) for name, prior in self.prior.items()}
        num_batches = 0
        for loss in losses:
            num_batches += 1
            for square, gradient in zip(squares.values(), self._gradients(loss), strict=True):
                if gradient is not None:
                    square.addcmul_(gradient, gradient)
        if not num_batches:
            raise UserError(
                f"cache.stats_batch={self.stats_batch}: the training text is too short."
            )
        divisor = num_batches if self.stat_scale == "mean" else 1
        for square in squares.values():
            square.div_(divisor).sqrt_()
        self.statistic = squares

    def _derive(self) -> None:
        """The factors of the update: pull = decay r, at most 1, and step = lr / (S + floor)."""
        if self.rule == "sgd":
            return
        assert self.statistic, "prepare() collects the statistics"
        means = torch.stack([tensor.mean() for tensor in self.statistic.values()])
        scale = means.mean() if self.stat_scale == "mean" else means.sum()
        if not (scale.isfinite() and scale > 0):
            raise UserError(
                f"cache=dynamic: the mean gradient on the training text is {scale.item():g}. The "
                "weights have diverged, or none of them reaches the loss."
            )
        for name, tensor in self.statistic.items():
            self.pull[name] = (tensor / scale).mul_(self.decay).clamp_(max=1.0)
            self.step[name] = self.lr / (tensor + self.floor)
