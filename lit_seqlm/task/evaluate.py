"""Score a trained model exactly, with a memory of the stream if one is asked for."""

from typing import Any

import lightning
from torch import Tensor, nn

from lit_seqlm.cache.none import NoCache
from lit_seqlm.data.batch import Batch
from lit_seqlm.model.layers.margin import select
from lit_seqlm.model.output import Output
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.objective.loss import Loss
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.base import SequenceTask


class Evaluate(SequenceTask):
    """Validation and test perplexity of the weights given by ``init_from``; nothing is trained.

    A cache scores each segment first and remembers it afterwards.
    """

    inherits = ("model", "objective", "data")

    def __init__(
        self,
        model: nn.Module,
        objective: CausalLM,
        regularizer: NoRegularizer,
        unknown_id: int | None,
        cache: NoCache,
    ):
        super().__init__(model, objective, regularizer, unknown_id)
        self.cache = cache

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        return self.evaluate(trainer, datamodule)

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 0:
            self.cache.reset()

    def _final_nll(self, output: Output, batch: Batch, loss: Loss) -> Tensor:
        hidden_ND = select(output.raw_BTD, batch.mask_BT)
        log_prob_N = self.cache.log_prob(hidden_ND, -loss.clean_nll_N, loss.targets_N)
        self.cache.update(hidden_ND, loss.targets_N)
        return -log_prob_N
