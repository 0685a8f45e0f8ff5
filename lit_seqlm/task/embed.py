"""Pooled hidden states of every row of a file."""

# B = sequences, T = tokens, D = hidden size

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_seqlm.checkpoint import load_weights
from lit_seqlm.data.row_places import ARRAYS
from lit_seqlm.data.row_tables import TABLES
from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.pooling import Pooling
from lit_seqlm.model.property import trunk_of
from lit_seqlm.task.context import redraws
from lit_seqlm.task.rows import RowTask

log = logging.getLogger(__name__)


class Embedder(nn.Module):
    """A trunk and how its states become one vector a sequence."""

    def __init__(self, trunk: Any, pooling: str):
        super().__init__()
        self.trunk, self.pooling = trunk, Pooling(pooling)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.pooling(self.trunk(tokens_BT))


class Embed(RowTask):
    """The trunk of any encoder's run, pretrained or fine-tuned; float32.

    Args:
        pooling: see `Pooling`.
        per_residue: states of each residue instead, an array (L, D) for every row, in an ``.npz``.
        num_draws: of random features, whose states are averaged; more than one only where each call
            draws them anew.
        model, input, output, column, window, token_budget, overwrite: see `RowTask`.
    """

    accepted = (*TABLES, *ARRAYS)
    vector = "embedding"
    dtype = "float32"

    def __init__(
        self,
        model: nn.Module,
        pooling: str,
        per_residue: bool,
        num_draws: int,
        input: str,
        output: str,
        column: str | None,
        window: int,
        token_budget: int,
        overwrite: bool,
    ):
        embedder = Embedder(trunk_of(model), pooling)
        super().__init__(embedder, input, output, column, window, token_budget, overwrite)
        if num_draws < 1 or (num_draws > 1 and not redraws(embedder)):
            raise UserError(
                f"task.num_draws={num_draws}: 1, or more with +model.attention.omega_policy=redraw_always, since "
                "otherwise all draws are the same."
            )
        if per_residue and self.output.suffix != ".npz":
            raise UserError(f"task.output={output}: with task.per_residue say NAME.npz.")
        self.num_draws, self.own_arrays = num_draws, per_residue
        size = 0 if per_residue else embedder.trunk.hidden_size
        self.columns = [f"embedding_{place}" for place in range(size)]

    def begin(self, origin: dict[str, Any], tokenizer: Any, what: str) -> None:
        load_weights(self.model, origin, tokenizer, what, only="trunk.")

    def answers(self, tokens_BT: Tensor, covariates_BC: Tensor | None) -> Tensor | np.ndarray:
        model = self.model.trunk if self.own_arrays else self.model
        states = [model(tokens_BT) for _ in range(self.num_draws)]
        mean = (torch.stack(states).mean(0) if self.num_draws > 1 else states[0]).float()
        if not self.own_arrays:
            return mean
        answers_B1 = np.empty((len(mean), 1), object)
        for place, hidden_TD in enumerate(mean.cpu().numpy()):
            answers_B1[place, 0] = hidden_TD[self.own_tokens(len(hidden_TD))]
        return answers_B1
