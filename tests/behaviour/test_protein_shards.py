"""Proteins streamed from shards: two processes train as one does on the same batches, and go on after a stop."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from lit_seqlm.config import CONF, build, register
from lit_seqlm.data.prepare.pipeline import prepare
from tests.behaviour.test_resume import SLOWED, assert_same_end, killed_midway, weights
from tests.conftest import Program
from tests.unit.test_prepare_proteins import drawn, options_of, write_table

TWO = ["strategy=ddp", "trainer.devices=2"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proteins")
    write_table(folder / "a.tsv", drawn(700))
    prepare(options_of(folder))
    return folder / "corpus"


def packed(corpus: Path) -> list[str]:
    return [
        "data=protein_shards", f"data.source.folder={corpus}", "data.row_len=64", "data.token_budget=256",
        "data.eval_token_budget=256", "data.window=200", "model=mlm_nano", "model.hidden_size=16",
        "objective=masked_lm", "optimizer=adamw", "trainer.gradient_clip_val=1.0", "trainer.max_epochs=1",
        "name=packed", "logger=none",
    ]  # fmt: skip


def by_one_process(overrides: list[str]) -> tuple[dict[str, Tensor], float]:
    """Weights after an epoch of both shares in one loss, and the test's nll: a loop of our own."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", overrides=[*overrides, "paths.run_dir=unused"])
    data = build(cfg.data)
    torch.manual_seed(cfg.seed)
    data.setup()
    model, objective = build(cfg.model, vocab_size=len(data.tokenizer)), build(cfg.objective)
    regularizer, optimizer = build(cfg.regularizer), build(cfg.optimizer)(model.parameters())

    def loss(batch):  # type: ignore[no-untyped-def]
        output = model(batch.tokens_BT, None, **batch.conditions())
        return objective(output, model.output_embedding, batch, regularizer)

    shares = []
    for rank in (0, 1):
        data.trainer = SimpleNamespace(current_epoch=0, global_rank=rank, world_size=2)
        shares.append(list(data.train_dataloader()))
    for batches in zip(*shares, strict=True):
        losses = [loss(batch) for batch in batches]
        (sum(one.sum for one in losses) / sum(one.count for one in losses)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    data.trainer = None
    with torch.no_grad():
        losses = [loss(batch) for batch in data.exact_dataloader("test")]
    nll = float(sum(one.sum for one in losses)) / sum(one.count for one in losses)
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}, nll


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_the_same_batches(tmp_path: Path, corpus: Path) -> None:
    program = Program(tmp_path)
    program(*packed(corpus), *TWO)
    ours, nll = by_one_process(packed(corpus))
    theirs = weights(program)
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=1e-5), name
    (record,) = program.results()
    assert record["metrics"]["test/nll"] == pytest.approx(nll, abs=1e-5)


@pytest.mark.slow
def test_a_stopped_run_of_two_ends_as_an_uninterrupted_one(tmp_path: Path, corpus: Path) -> None:
    overrides = [*packed(corpus), *TWO, *SLOWED, "model.dropout=0.2", "trainer.max_epochs=3"]
    whole, stopped = Program(tmp_path / "whole"), Program(tmp_path / "stopped")
    whole(*overrides)
    assert killed_midway(stopped, overrides, signal.SIGKILL).returncode != 0
    assert "continuing from" in stopped(*overrides)
    assert_same_end(whole, stopped)
