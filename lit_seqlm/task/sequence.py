"""Tasks that predict tokens: from the tokens before, with a carried state, or from all others."""

# B = sequences, T = tokens

import math
from typing import Any

import lightning
from torch import Tensor, nn

from lit_seqlm.data.batch import Batch
from lit_seqlm.metrics.perplexity import Perplexity
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.objective.loss import Loss
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.base import EXACT_SPLITS, SPLITS, Task
from lit_seqlm.task.context import check_context


class SequenceTask(Task):
    """A language model scored by its perplexity.

    The recurrent state lives here: Lightning 2 has no hook for truncated back-propagation through time. A model is an
    nn.Module with `output_embedding` and `detach`: see lit_seqlm/README.md.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: CausalLM,
        regularizer: NoRegularizer,
        unknown_id: int | None,
    ):
        super().__init__(
            model, {stage: Perplexity(unknown_id) for stage in ("train", "val", "test")}
        )
        self.objective, self.regularizer = objective, regularizer

    def forward(self, tokens_BT: Tensor, state: Any = None) -> Any:
        return self.model(tokens_BT, state)

    def evaluate(self, trainer: lightning.Trainer, datamodule: Any) -> dict[str, float]:
        """Score validation and test exactly: nothing reset or left out, every prediction counted once."""
        check_context(self.model, datamodule)
        metrics = self._test(trainer, datamodule)
        for stage, split in zip(EXACT_SPLITS, SPLITS, strict=True):
            nll, scored = metrics.get(f"{stage}/nll", math.nan), metrics.get(f"{stage}/tokens", 0.0)
            metrics |= {
                f"{stage}/{name}": value
                for name, value in datamodule.exact_numbers(split, nll, scored).items()
            }
        return metrics

    def _forward(self, batch: Batch, stage: str) -> tuple[Any, Loss]:
        state = self.states.get(stage) if batch.continues else None
        output = self.model(batch.tokens_BT, state, **batch.conditions())
        self.states[stage] = None if output.state is None else self.model.detach(output.state)
        return output, self.objective(output, self.model.output_embedding, batch, self.regularizer)

    def _step(self, batch: Batch, stage: str) -> tuple[Any, Loss]:
        output, loss = self._forward(batch, stage)
        self._metric(stage).update(loss.clean_nll_N, loss.targets_N, loss.hits_N)
        self.num_tokens += batch.num_tokens if stage == "train" else 0
        return output, loss
