"""Whether what is scored has the context that a number is supposed to have."""

import logging
from typing import Any

import torch
from torch import nn

from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

CALM = {
    "pad_handling": "mask",
    "omega_policy": "fixed",
}  # a model's options that leave nothing to chance


@torch.no_grad()
def check_context(model: Any, datamodule: Any) -> None:
    """Refuse to score a model that carries no state on segments that would each begin without context.

    Raises:
        UserError: if the data gives it no overlapping windows.
    """
    was_training, device = model.training, next(model.parameters()).device
    state = model.eval()(torch.zeros(1, 2, dtype=torch.long, device=device), None).state
    model.train(was_training)
    if state is None and datamodule.needs_state:
        raise UserError(
            "this model carries no state from one segment to the next. Say data.eval_stride=N, to score windows of "
            "data.eval_seq_len tokens that move on by N."
        )


def warn_of_chance(model: dict[str, Any], what: str) -> None:
    """Say which options of an inherited model make its output depend on chance, or on the rest of a batch.

    Args:
        model: its config.
        what: names the run it comes from.
    """
    options = model | model.get("attention", {})
    for key, calm in CALM.items():
        if options.get(key, calm) != calm:
            prefix = "model." if key in model else "model.attention."
            log.warning(
                "%s was made with %s%s=%s: what it predicts is not always the same. +%s%s=%s ends that.",
                what, prefix, key, options[key], prefix, key, calm,
            )  # fmt: skip


def redraws(model: nn.Module) -> bool:
    """Whether two calls of a model in eval mode differ."""
    return any(getattr(part, "policy", "") == "redraw_always" for part in model.modules())


def warn_of_redraws(model: nn.Module) -> None:
    """Say where the same sequence may get another answer."""
    if redraws(model):
        log.warning(
            "model.attention.omega_policy=redraw_always: features are drawn anew for each batch, so an answer "
            "depends on the rows around it. Say +model.attention.omega_policy=fixed to use the ones kept."
        )
