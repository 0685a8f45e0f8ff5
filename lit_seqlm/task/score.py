"""Every perplexity of a masked language model, by its definition."""

# B = sequences, T = tokens, N = masked tokens, V = vocabulary

import logging
from typing import Any

import lightning
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.masked_scores import DEFINITIONS, MaskedScores
from lit_seqlm.model.layers.margin import select
from lit_seqlm.objective.masked_lm import MaskedLM
from lit_seqlm.task.base import EXACT_SPLITS, Task

log = logging.getLogger(__name__)


class Score(Task):
    """Masked perplexity of the weights given by ``init_from``, and its relatives, each named in `card`.

    Masks are those of the data's exact evaluation: the same for every model. Pseudo-perplexity masks one residue at
    a time, so a sequence of L residues takes L passes: it is read of a sample.

    Args:
        split: ``valid`` or ``test``.
        num_pseudo: sequences of which the pseudo-perplexity is read, drawn by `seed`; 0: of none.
        token_budget: of a batch of such passes.
    """

    inherits = ("model", "objective", "data")

    def __init__(
        self,
        model: nn.Module,
        objective: MaskedLM,
        split: str,
        num_pseudo: int,
        token_budget: int,
        seed: int,
    ):
        super().__init__(model, {})
        if not isinstance(objective, MaskedLM):
            raise UserError(
                "task=score is for masked models: it scores what was masked. Say task=evaluate."
            )
        if split not in SPLITS[1:]:
            raise UserError(f"task.split={split}: choose {' or '.join(SPLITS[1:])}.")
        if num_pseudo < 0 or token_budget < 1:
            raise UserError(f"task.num_pseudo={num_pseudo}, token_budget={token_budget}: below 0.")
        self.split, self.num_pseudo = split, num_pseudo
        self.token_budget, self.seed = token_budget, seed

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        self.to(trainer.strategy.root_device).eval()
        self.clock.start()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            numbers = self._masked(datamodule).compute(self.seed)
            if self.num_pseudo:
                numbers |= self._pseudo(datamodule)
        self.clock.stop()
        self.card["definitions"] = {
            name: DEFINITIONS[name] for name in DEFINITIONS if name in numbers
        }
        self.card["intervals"] = "95 %, bootstrap over sequences"
        for name in self.card["definitions"]:
            log.info("%s %.4f: %s", name, numbers[name], DEFINITIONS[name])
        self.card["split"] = self.split
        stage = dict(zip(SPLITS[1:], EXACT_SPLITS, strict=True))[self.split]
        return {f"{stage}/{name}": value for name, value in numbers.items()}

    def _masked(self, datamodule: Any) -> MaskedScores:
        scores = MaskedScores(getattr(datamodule.tokenizer, "standard_ids", []))
        first = 0
        for batch in self._shown(datamodule.exact_dataloader(self.split), "masked"):
            batch = self._on_device(batch)
            output = self.model(batch.tokens_BT, None, **batch.conditions())
            owner_BT = batch.segments_BT
            if owner_BT is None:
                rows_B1 = torch.arange(len(batch.tokens_BT), device=self.device)[:, None]
                owner_BT = rows_B1.expand_as(batch.tokens_BT)
            targets_N = select(batch.targets_BT, batch.mask_BT)
            log_prob_NV = self._log_prob(select(output.hidden_BTD, batch.mask_BT))
            hidden_N = select(batch.tokens_BT, batch.mask_BT) == datamodule.tokenizer.mask_id
            owner_N = first + select(owner_BT, batch.mask_BT)
            scores.update(log_prob_NV, targets_N, hidden_N, owner_N)
            first += int(owner_BT.max()) + 1
            self.num_tokens += batch.num_tokens
        return scores

    def _pseudo(self, datamodule: Any) -> dict[str, float]:
        table = datamodule.tables[self.split]
        number = min(self.num_pseudo, len(table))
        rows = np.random.default_rng(self.seed).permutation(len(table))[:number]
        special = torch.tensor(datamodule.tokenizer.special_ids, device=self.device)
        scores = MaskedScores([])
        for place, row in enumerate(self._shown(rows, "pseudo")):
            tokens_T = torch.from_numpy(table[int(row)].astype(np.int64)).to(self.device)
            places_N = (~torch.isin(tokens_T, special)).nonzero()[:, 0]
            for some_B in places_N.split(max(1, self.token_budget // len(tokens_T))):
                log_prob_NV = self._alone(tokens_T, some_B, datamodule.tokenizer.mask_id)
                alone_B = torch.ones_like(some_B)
                scores.update(log_prob_NV, tokens_T[some_B], alone_B, alone_B * place)
        found = scores.compute(self.seed)
        named = {"ppl": "pseudo_ppl", "ppl_low": "pseudo_ppl_low", "ppl_high": "pseudo_ppl_high",
                 "sequences": "pseudo_sequences"}  # fmt: skip
        return {name: found[key] for key, name in named.items()}

    def _alone(self, tokens_T: Tensor, places_B: Tensor, mask_id: int) -> Tensor:
        """Log-probabilities (B, V) at each place, masked alone."""
        rows_B = torch.arange(len(places_B), device=self.device)
        tokens_BT = tokens_T.repeat(len(places_B), 1)
        tokens_BT[rows_B, places_B] = mask_id
        hidden_BTD = self.model(tokens_BT, None).hidden_BTD
        return self._log_prob(hidden_BTD[rows_B, places_B])

    def _log_prob(self, hidden_ND: Tensor) -> Tensor:
        return self.model.output_embedding.log_prob(hidden_ND).float()

    def _on_device(self, batch: Any) -> Any:
        return lightning.pytorch.utilities.move_data_to_device(batch, self.device)

    def _shown(self, items: Any, what: str) -> Any:
        console = Console(stderr=True)
        label, silent = f"{what}, {self.split}", not console.is_terminal
        return track(items, label, len(items), console=console, transient=True, disable=silent)
