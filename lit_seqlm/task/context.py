"""Whether what is scored has the context that a number is supposed to have."""

from typing import Any

import torch

from lit_seqlm.errors import UserError


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
