"""What memories learn from the training text before they read another."""

# B = sequences, T = tokens, N = predictions, D = hidden size

import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import move_data_to_device
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from lit_seqlm.cache.dynamic import DynamicEvaluation
from lit_seqlm.cache.knn import KNNStore
from lit_seqlm.cache.memory import Memory
from lit_seqlm.data.batch import Batch
from lit_seqlm.model.layers.margin import select
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.keys import Keys

log = logging.getLogger(__name__)

COLUMNS = 10  # of the training text, read side by side


class Lessons:
    """Runs a model over its training text for the memories that ask for it: states for a store or for principal axes,
    gradients for dynamic evaluation. Nothing here sees the text that is scored."""

    def __init__(
        self, model: nn.Module, keys: Keys, objective: CausalLM, trainer: lightning.Trainer
    ):
        self.model: Any = model.to(trainer.strategy.root_device).eval()
        self.keys = keys
        self.objective, self.device = objective, trainer.strategy.root_device
        self.precision = trainer.precision_plugin

    def give(self, cache: Memory, datamodule: Any) -> None:
        if cache.adapter is not None:
            self._gradients(cache.adapter, datamodule)
        for name, memory in cache.memories.items():
            length = datamodule.streams["train"].numel()
            whole = COLUMNS * (length // COLUMNS - 1)  # one prediction less than tokens in a column
            wanted = whole if memory.training_tokens is None else min(memory.training_tokens, whole)
            if not wanted:
                continue
            identity = self._identity(datamodule, wanted)
            if isinstance(memory, KNNStore) and memory.restore(identity):
                log.info("%s: %s states found in %s", name, f"{len(memory.store):,}", memory.folder)
                continue
            log.info("%s: reading %s training tokens", name, f"{wanted:,}")
            memory.learn(self._states(datamodule, wanted), wanted)
            if isinstance(memory, KNNStore):
                memory.keep(identity)

    def _gradients(self, adapter: DynamicEvaluation, datamodule: Any) -> None:
        loader = datamodule.columns_loader("train", adapter.stats_batch, adapter.segment)
        batches = len(loader) if adapter.stats_max_batches is None else adapter.stats_max_batches
        log.info("dynamic evaluation: gradients of %s training segments", f"{batches:,}")
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            adapter.prepare(self.model, self._losses(loader, batches))

    @torch.no_grad()
    def _states(self, datamodule: Any, wanted: int) -> Iterator[tuple[Tensor, Tensor]]:
        loader = datamodule.columns_loader("train", COLUMNS, datamodule.eval_seq_len)
        left = wanted
        for output, batch in self._run(loader, len(loader)):
            hidden_ND = select(self.keys.of(output), batch.mask_BT)
            words_N = select(batch.targets_BT, batch.mask_BT)
            yield hidden_ND[:left].float(), words_N[:left]
            left -= len(words_N)
            if left <= 0:
                return

    def _losses(self, loader: Any, total: int) -> Iterator[Tensor]:
        """Mean loss with its graph, of each batch."""
        softmax = self.model.output_embedding
        for output, batch in self._run(loader, total):
            yield self.objective(output, softmax, batch, NoRegularizer()).mean

    def _run(self, loader: Any, total: int) -> Iterator[tuple[Any, Batch]]:
        """What the model says of each batch; in the precision of the trainer."""
        state, console = None, Console(stderr=True)
        batches = track(
            loader, "training text", total, console=console, disable=not console.is_terminal
        )
        for batch in batches:
            batch = move_data_to_device(batch, self.device)
            with self.precision.forward_context():
                output = self.model(batch.tokens_BT, state)
            state = None if output.state is None else self.model.detach(output.state)
            yield output, batch

    def _identity(self, datamodule: Any, wanted: int) -> dict[str, Any]:
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        digest.update(datamodule.streams["train"].numpy().tobytes())
        reading = f"{datamodule.eval_seq_len}, {datamodule.eval_stride}"
        return {
            "weights_and_text": digest.hexdigest(),
            "tokens": wanted,
            "key": self.keys.which,
            "windows": reading,
            "precision": str(self.precision.precision),
        }
