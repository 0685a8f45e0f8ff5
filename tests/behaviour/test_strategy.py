"""Two processes train as one would on the same batches; killed, stopped and failing ones end as they should."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from lit_seqlm.config import CONF, build, config_hash, register
from lit_seqlm.objective.loss import Loss
from lit_seqlm.strategy.launch import num_devices
from lit_seqlm.task.ranks import of_this_rank, step_loss
from tests.behaviour.test_resume import SLOWED, assert_same_end, killed_midway, weights
from tests.conftest import Program

TWO = ["strategy=ddp", "trainer.devices=2"]
NO_DROPOUT = ["model.dropout=0", "model.embedding_dropout=0"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    rng = np.random.default_rng(0)
    pieces = ["C", "CC", "C(C)", "O", "N", "C(=O)", "C(O)", "CCC", "C(F)", "C(N)"]
    for name, number in (("train", 700), ("test", 200)):
        made = {"C" + "".join(rng.choice(pieces, rng.integers(2, 8))) + "C" for _ in range(number)}
        (folder / f"{name}.csv").write_text("\n".join(["SMILES", *sorted(made)]) + "\n")
    return folder


def masked(corpus: Path) -> list[str]:
    return [
        "data=moses", f"data.source.data_dir={corpus}", "data.source.train=train.csv", "data.source.test=test.csv",
        "data.source.num_heldout=60", "data.source.cache_dir=null", "data.token_budget=480",  # an odd number of batches
        "data.eval_token_budget=512", "model=linear_encoder_smoke", "objective=masked_lm", "optimizer=adamw",
        "trainer.gradient_clip_val=1.0", "trainer.max_epochs=1", "name=shared", "logger=none",
    ]  # fmt: skip


class Alone:
    """The same training by a loop in one process: both shares of every step in one loss."""

    def __init__(self, overrides: list[str]):
        register()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            self.cfg = compose("config", overrides=[*overrides, "paths.run_dir=unused"])
        self.data = build(self.cfg.data)
        torch.manual_seed(self.cfg.seed)
        self.data.setup()
        self.model = build(self.cfg.model, vocab_size=len(self.data.tokenizer))
        self.objective, self.regularizer = build(self.cfg.objective), build(self.cfg.regularizer)

    def loss(self, batch: Any) -> Loss:
        output = self.model(batch.tokens_BT, None, **batch.conditions())
        return self.objective(output, self.model.output_embedding, batch, self.regularizer)

    def train(self) -> dict[str, Tensor]:
        optimizer = build(self.cfg.optimizer)(self.model.parameters())
        batches = list(self.data.train_dataloader())
        assert len(batches) % 2, "one process has a batch more than the other"
        for start in range(0, len(batches), 2):
            losses = [self.loss(batch) for batch in batches[start : start + 2]]
            (sum(one.sum for one in losses) / sum(one.count for one in losses)).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}

    @torch.no_grad()
    def nll(self, split: str) -> float:
        self.model.eval()
        losses = [self.loss(batch) for batch in self.data.exact_dataloader(split)]
        return float(sum(one.sum for one in losses)) / sum(one.count for one in losses)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one_does_on_the_same_batches(
    tmp_path: Path, corpus: Path, strategy: str
) -> None:
    program, overrides = Program(tmp_path), [*masked(corpus), *NO_DROPOUT]
    output = program(*overrides, f"strategy={strategy}", "trainer.devices=2")
    alone = Alone(overrides)
    theirs = weights(program)
    for name, tensor in alone.train().items():
        assert torch.allclose(tensor, theirs[name], atol=1e-5), name
    (record,) = program.results()
    for stage, split in (("val", "valid"), ("test", "test")):
        assert record["metrics"][f"{stage}/nll"] == pytest.approx(alone.nll(split), abs=1e-5)
    assert record["device"].startswith("2 x ")
    assert output.count("epoch 1/1") == 1, "one of them tells"
    assert len(list(program.outputs.rglob("history.csv"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "how"), [("ddp", signal.SIGTERM), ("fsdp", signal.SIGKILL)], ids=str
)
def test_a_stopped_run_of_two_ends_as_an_uninterrupted_one(
    tmp_path: Path, corpus: Path, strategy: str, how: signal.Signals
) -> None:
    overrides = [*masked(corpus), f"strategy={strategy}", "trainer.devices=2", *SLOWED]
    overrides += ["model.dropout=0.2", "trainer.max_epochs=3"]
    whole, stopped = Program(tmp_path / "whole"), Program(tmp_path / "stopped")
    whole(*overrides)
    process = killed_midway(stopped, overrides, how)
    assert process.returncode != 0
    (record,) = stopped.results()
    assert record["status"] == ("running" if how == signal.SIGKILL else "interrupted")
    assert "continuing from" in stopped(*overrides)
    assert_same_end(whole, stopped)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_with_one_message(
    tmp_path: Path, corpus: Path
) -> None:
    program = Program(tmp_path)
    process = program.start(*masked(corpus), *TWO, "trainer.max_epochs=500")
    deadline = time.monotonic() + 200
    while not list(tmp_path.rglob("history.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = [pid for pid in map(int, children) if "run.py" in _command(pid)]
    os.kill(other, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "process 1 of this run was ended by SIGKILL" in output
    assert "Traceback" not in output


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.devices=2"], "say how they train one model: strategy=ddp"),
        (["strategy=ddp", "data=synthetic"], "read in order by one process"),
        (["strategy=ddp", "task=evaluate"], "needs trained weights"),
        (["strategy=dpp"], "Did you mean ddp"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    program: Program, overrides: list[str], message: str
) -> None:
    output = program(*overrides, status=2)
    assert message in output
    assert "Traceback" not in output


def test_one_device_has_the_identity_that_it_always_had() -> None:
    """Sections that most runs do without count only where they are said."""
    register()

    def digest(*overrides: str) -> str:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return config_hash(compose("config", overrides=["paths.run_dir=unused", *overrides]))

    assert digest() == digest("strategy=single") == digest("trainer.devices=4")
    two = digest(*TWO)
    assert len({digest(), two, digest("strategy=ddp", "trainer.devices=4")}) == 3


def test_a_step_by_one_process_follows_its_own_mean() -> None:
    total = torch.tensor(6.0, dtype=torch.float64)
    assert float(step_loss(Loss(total, 4, torch.zeros(4), torch.zeros(4)))) == 1.5
    assert of_this_rank({"state": 1}) == {"state": 1}


def test_devices_are_counted_as_lightning_counts_them() -> None:
    assert num_devices(3, "cpu") == 3
    assert num_devices([0, 2], "gpu") == 2
    assert num_devices("auto", "cpu") == 1
    assert num_devices(-1, "gpu") == max(1, torch.cuda.device_count())
