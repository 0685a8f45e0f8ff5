"""Read a text as one stream, with memories of it beside the model, and report every number with how it was made."""

# B = sequences, T = tokens, N = predictions, D = hidden size

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn

from lit_seqlm.cache.memory import Memory
from lit_seqlm.cache.mixing.strategies import MixingOptions, make_mixing
from lit_seqlm.cache.record import Record
from lit_seqlm.data.batch import Batch
from lit_seqlm.model.layers.margin import select
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task.base import EXACT_SPLITS, SPLITS
from lit_seqlm.task.context import check_context
from lit_seqlm.task.keys import Keys
from lit_seqlm.task.lessons import Lessons
from lit_seqlm.task.progress import Progress
from lit_seqlm.task.protocol import protocol
from lit_seqlm.task.reading import Reading, check_new_words, read
from lit_seqlm.task.report import Report
from lit_seqlm.task.sequence import SequenceTask
from lit_seqlm.task.show import show
from lit_seqlm.task.stream_pass import StreamPass, check_neighbours


class Evaluate(SequenceTask):
    """Validation and test perplexity of the weights given by ``init_from``, with what a cache adds.

    A memory scores a token from what came before it, and only then learns it. Reading leaves a record of
    log-probabilities; weights are chosen on that of validation, and the test is read once, with one setting of each.

    Args:
        weights, mixing: of the memories: fixed | tuned | online | em | gate (`lit_seqlm.cache.mixing`).
        key: the state that memories compare: ``output``, or another that the model offers (`lit_seqlm.task.keys`).
        new_words: what a word outside the vocabulary is: ``unknown``, that is ``<unk>``; or a word of its own, whose
            share of p(<unk>) is ``uniform`` or given by a ``character`` model of its spelling.
        num_words: new words that ``uniform`` counts on; null: as many as the split has, which it then knows.
        every_seconds: seconds between saves from which an interrupted reading goes on.
        folder: of the run; the records are kept in it.
        keep_neighbours: so many of each token's are written down for `experiments/sweep_cache.py`; null: none.
    """

    inherits = ("model", "objective", "data")

    def __init__(
        self,
        model: nn.Module,
        objective: CausalLM,
        regularizer: NoRegularizer,
        unknown_id: int | None,
        cache: Memory,
        weights: str,
        mixing: Callable[..., MixingOptions],
        key: str,
        new_words: str,
        num_words: int | None,
        keep_neighbours: int | None,
        every_seconds: float,
        folder: str,
    ):
        super().__init__(model, objective, regularizer, unknown_id)
        self.cache, self.unknown_id = cache, unknown_id
        self.key, self.new_words, self.num_words = key, new_words, num_words
        lam = {name: memory.lam for name, memory in cache.memories.items()}
        self.make_mixing = partial(make_mixing, weights, mixing(lam=lam))
        self.make_mixing()  # refuses what cannot be, before anything is read
        check_new_words(new_words, num_words)
        check_neighbours(keep_neighbours, cache)
        self.keep_neighbours, self.records = keep_neighbours, Path(folder) / "records"
        self.progress = Progress(Path(folder) / "reading.ckpt", every_seconds)
        self.weights = weights
        self.has_grid = any(len(memory.settings) > 1 for memory in cache.memories.values())
        self.wants_entropy = weights == "gate" and bool(cache.memories)

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        check_context(self.model, datamodule)
        self.keys = Keys(self.model, self.key)
        report = Report(self.cache, self.make_mixing, self.unknown_id)
        Lessons(self.model, self.keys, self.objective, trainer).give(self.cache, datamodule)
        for stage, split in zip(EXACT_SPLITS, SPLITS, strict=True):
            reading = read(datamodule, split, self.new_words, self.num_words)
            report.add(stage, self._read(trainer, datamodule, reading), reading, datamodule)
        self.card = {**protocol(self, datamodule), **report.card()}
        show(report, trainer.loggers, self.records.parent, datamodule)
        return report.metrics

    def _read(self, trainer: lightning.Trainer, datamodule: Any, reading: Reading) -> Record:
        """Read a split to its end, from wherever an earlier attempt left it."""
        kept = self.records / f"{reading.split}.npz"
        if kept.exists():
            return Record.load(kept)
        loader = datamodule.exact_dataloader(reading.split)
        self.stream = StreamPass(reading, self.cache, ["entropy"] * self.wants_entropy)
        self.states, self.num_batches = {}, 0
        self.progress.limited = trainer.limit_test_batches not in (None, 1.0)
        if saved := self.progress.load(reading.split):
            state = move_data_to_device(saved["state"], trainer.strategy.root_device)
            self.states, self.num_batches = {"test": state}, saved["batches"]
            self.stream.load_state_dict(saved["stream"])
            loader.load_state_dict({"position": self.num_batches})
        if self.keep_neighbours:
            self.stream.keep_neighbours(self.records, self.keep_neighbours)
        trainer.test(self, dataloaders=loader, verbose=False)
        self.stream.end().save(kept)
        self.progress.done()
        return self.stream.record

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        adapter = self.cache.adapter
        with torch.inference_mode(False), torch.backends.cudnn.flags(enabled=adapter is None):
            for piece in batch.pieces(adapter.segment if adapter else None):
                with torch.set_grad_enabled(adapter is not None):
                    output, loss = self._forward(piece, "test")
                with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                    self._remember(output, loss.clean_nll_N, piece)
                if adapter:
                    adapter.adapt(loss.mean)

    def on_test_batch_end(
        self, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.num_batches += 1
        self.progress.after_batch(self.stream, self._unfinished)

    def on_test_epoch_end(self) -> None:
        """The numbers come from the record."""

    def _remember(self, output: Any, nll_N: Tensor, batch: Batch) -> None:
        features: dict[str, Tensor] = {}
        if self.wants_entropy:
            entering_ND = select(output.hidden_BTD, batch.mask_BT)
            log_prob_NV = self.model.output_embedding.log_prob(entering_ND.float())
            features["entropy"] = -(log_prob_NV.exp() * log_prob_NV).sum(-1)
        self.stream.remember(select(self.keys.of(output), batch.mask_BT).float(), nll_N, features)

    def _unfinished(self) -> dict[str, Any]:
        state, stream = self.states.get("test"), self.stream.state_dict()
        return {"batches": self.num_batches, "state": state, "stream": stream}
