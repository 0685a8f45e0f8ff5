"""Hidden states of every token of a split, computed once: epochs on a frozen trunk then cost the head alone."""

# B = sequences, T = tokens, N = tokens of the split, D = hidden size

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.console import shown
from lit_seqlm.errors import DivergedError, UserError

log = logging.getLogger(__name__)

BYTES = 4  # of a float32


class TokenStates:
    """States in memory, looked up by a batch's rows.

    Args:
        states_ND: of all sequences, end to end.
        offsets: where each begins, one more than there are sequences.
    """

    def __init__(self, states_ND: Tensor, offsets: np.ndarray):
        self.states_ND, self.offsets = states_ND, torch.from_numpy(offsets)

    def of(self, rows_B: Tensor, width: int, device: torch.device) -> Tensor:
        """(B, T, D) float32; zero on padding."""
        rows_B = rows_B.cpu()
        places_BT, valid_BT = self._places(rows_B, width)
        hidden_BTD = self.states_ND[places_BT] * valid_BT[..., None]
        return hidden_BTD.to(device, torch.float32)

    def put(self, rows_B: Tensor, hidden_BTD: Tensor) -> None:
        """Keep the states of some sequences; those of padding are left out."""
        places_BT, valid_BT = self._places(rows_B, hidden_BTD.size(1))
        own_ND = hidden_BTD.cpu()[valid_BT]
        if not own_ND.isfinite().all():
            raise DivergedError(
                "the frozen trunk's states are not finite: its weights have diverged, or trainer.precision is too "
                "coarse for them. Give another init_from=, or say trainer.precision=32-true."
            )
        kept_ND = own_ND.to(self.states_ND.dtype)
        if not kept_ND.isfinite().all():  # what float16 cannot hold
            raise UserError(
                f"states of the frozen trunk are not finite as {self.states_ND.dtype}. Say task.float32_mb=N with "
                "more megabytes, so that they are kept as float32."
            )
        self.states_ND[places_BT[valid_BT]] = kept_ND

    def _places(self, rows_B: Tensor, width: int) -> tuple[Tensor, Tensor]:
        places_BT = self.offsets[rows_B][:, None] + torch.arange(width)
        valid_BT = places_BT < self.offsets[rows_B + 1][:, None]
        return places_BT.clamp(max=len(self.states_ND) - 1), valid_BT


@torch.no_grad()
def token_states(
    trunk: Any, datamodule: Any, split: str, device: torch.device, float32_mb: int
) -> TokenStates:
    """What a trunk in eval mode makes of each sequence of a split.

    Args:
        float32_mb: states that would be larger are kept as float16, in half the memory.
    """
    tokens = datamodule.tables[split].tokens
    megabytes = len(tokens.ids) * trunk.hidden_size * BYTES / 2**20
    dtype = torch.float32 if megabytes <= float32_mb else torch.float16
    states = TokenStates(
        torch.zeros(len(tokens.ids), trunk.hidden_size, dtype=dtype), tokens.offsets
    )
    for batch in shown(datamodule.exact_dataloader(split), f"states of {split}"):
        valid_BT = None if batch.valid_BT is None else batch.valid_BT.to(device)
        states.put(batch.rows_B, trunk(batch.tokens_BT.to(device), valid_BT))
    held = states.states_ND.numel() * states.states_ND.element_size() / 2**20
    log.info(
        "%s: the frozen trunk's states of %s tokens are kept, %.0f MB of %s",
        split, f"{len(tokens.ids):,}", held, str(dtype).removeprefix("torch."),
    )  # fmt: skip
    return states
