"""A training step of the whole program against a bare torch loop, and with the adversary against without."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from measure import Comparison
from rich.progress import Progress
from torch import Tensor, nn

from lit_seqlm.config import build, register
from lit_seqlm.data.batch import Batch
from lit_seqlm.engine import Assembled, assemble
from lit_seqlm.process import tune_memory
from lit_seqlm.regularizer.none import NoRegularizer

CONF = Path(__file__).resolve().parents[2] / "conf"
STEP_TARGET, MARGIN_TARGET = 1.05, 1.02
PTB_SIZE = ["data.source.vocab_size=10000", "data.batch_size=20", "data.eval_batch_size=10"]
TINY = ["data.source.vocab_size=50", "data.batch_size=4", "model.hidden_size=8"]


def program(
    folder: str, steps: int, sizes: list[str], regularizer: str = "none"
) -> tuple[Assembled, Any]:
    """The real recipe, with all its callbacks and its logger, for `steps` steps on a synthetic stream."""
    batch_size = int(next(size for size in sizes if "data.batch_size" in size).split("=")[1])
    overrides = [
        "experiment=ptb_lstm_cpu", "data=synthetic", "scheduler=none", *sizes, f"regularizer={regularizer}",
        f"data.source.num_tokens={(steps + 2) * 35 * batch_size + 20_000}", f"paths.run_dir={folder}",
        f"trainer.limit_train_batches={steps}", "+trainer.limit_val_batches=1", "trainer.max_epochs=1",
    ]  # fmt: skip
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", overrides=overrides)
    return assemble(cfg, build(cfg.data)), cfg


class BareLoop:
    """The same model, data, optimizer and clipping as one writes them without any framework."""

    def __init__(self, cfg: Any, vocab_size: int, batches: Iterator[Batch], fused: bool):
        torch.manual_seed(cfg.seed)
        self.model = build(cfg.model, vocab_size=vocab_size).train()
        self.optimizer = build(cfg.optimizer, params=self.model.parameters())
        self.clip, self.batches, self.fused = cfg.trainer.gradient_clip_val, batches, fused
        self.state: Any = None

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            batch = next(self.batches)
            output = self.model(batch.tokens_BT, self.state)
            self.state = self.model.detach(output.state)
            self.optimizer.zero_grad()
            self.loss(output.hidden_BTD, batch.targets_BT).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()

    def loss(self, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        softmax = self.model.output_embedding
        if self.fused:
            total, _ = softmax.nll(hidden_BTD, targets_BT, None, NoRegularizer())
            return total / targets_BT.numel()
        logits_BTV = F.linear(hidden_BTD, softmax.weight, softmax.bias)
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


class Turns(lightning.Callback):
    """Stops the program's clock after every block of its steps and lets the peers take theirs."""

    def __init__(
        self, block: int, peers: dict[str, BareLoop], progress: Progress, title: str, blocks: int
    ):
        self.block, self.peers = block, peers
        self.seconds: dict[str, list[float]] = {name: [] for name in ("program", *peers)}
        self.progress, self.bar = progress, progress.add_task(title, total=blocks)
        self.started = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.block:
            return
        self.seconds["program"].append((time.perf_counter() - self.started) / self.block)
        self.interlude(pl_module, (batch_idx + 1) // self.block)
        self.progress.advance(self.bar)
        self.started = time.perf_counter()

    def interlude(self, task: Any, turn: int) -> None:
        names = list(self.peers)
        torch.use_deterministic_algorithms(False)  # the program's own setting
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            started = time.perf_counter()
            self.peers[name](self.block)
            self.seconds[name].append((time.perf_counter() - started) / self.block)
        torch.use_deterministic_algorithms(True)


class Alternate(Turns):
    """Another regularizer for every block of the program's own steps: A B, B A, A B, ..."""

    def __init__(self, regularizers: dict[str, nn.Module], *args: Any):
        super().__init__(*args)
        self.regularizers = regularizers
        self.order = [*regularizers, *reversed(regularizers)]
        self.seconds |= {name: [] for name in regularizers}

    def interlude(self, task: Any, turn: int) -> None:
        self.seconds[self.order[(turn - 1) % 4]].append(self.seconds["program"][-1])
        task.regularizer = self.regularizers[self.order[turn % 4]].train()


def whole_step(quick: bool) -> tuple[list[Comparison], dict[str, float]]:
    """At PTB's size, and with a model so small that only the overhead is left."""
    tune_memory()  # for the bare loops too, although they would not have it
    turns = _against_bare("training step", PTB_SIZE, 3 if quick else 30, 4)
    tiny = _against_bare("overhead of the program", TINY, 5 if quick else 20, 50)
    rows = [
        Comparison.of("program", name, turns["program"], turns[name], STEP_TARGET)
        for name in ("bare loop, fused loss", "bare loop, full logits")
    ]
    paired = zip(tiny["program"][1:], tiny["bare loop, fused loss"][1:], strict=True)
    return rows, {"overhead_ms_per_step": 1e3 * median(ours - bare for ours, bare in paired)}


def _against_bare(
    title: str, sizes: list[str], repetitions: int, block: int
) -> dict[str, list[float]]:
    blocks = repetitions + 1
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        whole, cfg = program(folder, blocks * block, sizes)
        vocab_size = len(whole.data.tokenizer)
        peers = {
            f"bare loop, {loss}": BareLoop(
                cfg, vocab_size, iter(whole.data.train_dataloader()), loss == "fused loss"
            )
            for loss in ("fused loss", "full logits")
        }
        turns = Turns(block, peers, progress, title, blocks)
        whole.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        whole.trainer.fit(whole.task, datamodule=whole.data)
        torch.use_deterministic_algorithms(False)
    return turns.seconds


def adversarial_step(quick: bool) -> list[Comparison]:
    tune_memory()
    block, blocks = 4, 2 * ((3 if quick else 40) + 1)
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        whole, _ = program(folder, blocks * block, PTB_SIZE, "adversarial")
        kinds = {"plain": NoRegularizer(), "adversarial": whole.task.regularizer}
        whole.task.regularizer = kinds["plain"]
        turns = Alternate(kinds, block, {}, progress, "adversarial step", blocks)
        whole.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        whole.trainer.fit(whole.task, datamodule=whole.data)
        torch.use_deterministic_algorithms(False)
    times = turns.seconds
    return [
        Comparison.of("adversarial", "plain", times["adversarial"], times["plain"], MARGIN_TARGET)
    ]
