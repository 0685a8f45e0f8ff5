"""Prediction of the tokens that were masked."""

from torch import nn

from lit_seqlm.data.batch import Batch
from lit_seqlm.model.layers.margin import Margin, select
from lit_seqlm.model.output import Output
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.objective.loss import Loss


class MaskedLM(CausalLM):
    """Cross-entropy at the masked positions alone (Devlin et al. 2019, section 3.1).

    Hidden states are gathered before the output embedding, so its cost is that of the masked positions. In evaluation
    it also tells which predictions hit.
    """

    def __call__(
        self, output: Output, output_embedding: nn.Module, batch: Batch, regularizer: Margin
    ) -> Loss:
        loss = super().__call__(output, output_embedding, batch, regularizer)
        if not output_embedding.training:
            hidden_ND = select(output.hidden_BTD, batch.mask_BT)
            best_N = output_embedding.log_prob(hidden_ND).argmax(-1)  # type: ignore[operator]
            loss.hits_N = best_N == loss.targets_N
        return loss
