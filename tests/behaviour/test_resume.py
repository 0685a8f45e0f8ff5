"""However a run ends, the same command goes on and arrives at the same weights, bit for bit."""

import csv
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, Program

SLOWED = [
    "callbacks.checkpoint.every_seconds=0"
]  # a checkpoint after every step: many places to be killed at
RECIPES = {
    "plain": ["model.dropout=0.2", "scheduler=plateau"],
    "everything": [
        "experiment=ptb_awd_lstm_cpu", "model.embedding_size=16", "optimizer.switch_epoch=1", "data.shuffle=partial",
        "scheduler=constant_then_decay", "scheduler.make.constant_epochs=1", "regularizer=adversarial",
        "regularizer.direction=random", "model.num_layers=2",
    ],
}  # fmt: skip


def killed_midway(
    program: Program, overrides: list[str], how: signal.Signals
) -> subprocess.Popen[str]:
    """Start a run and stop it between its first and its last checkpoint of the second epoch."""
    process = program.start(*overrides)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        history = list(program.outputs.rglob("history.csv"))
        if history:
            break
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.poll() is None, f"ended before it could be stopped:\n{process.stdout.read()}"
    process.send_signal(how)
    process.wait(timeout=60)
    return process


def weights(program: Program) -> dict[str, torch.Tensor]:
    (path,) = program.outputs.rglob("best.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_end(one: Program, other: Program) -> None:
    (first,), (second,) = one.results(), other.results()
    assert first["metrics"] == second["metrics"]
    assert first["status"] == second["status"] == "done"
    theirs = weights(other)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, theirs[name]), name
    (curve,), (other_curve,) = one.outputs.rglob("history.csv"), other.outputs.rglob("history.csv")
    assert curve.read_text() == other_curve.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, recipe: str, how: signal.Signals
) -> None:
    overrides = [*TINY, *RECIPES[recipe], "trainer.max_epochs=3", *SLOWED]
    whole, stopped = Program(tmp_path / "whole"), Program(tmp_path / "stopped")
    whole(*overrides)
    process = killed_midway(stopped, overrides, how)
    assert process.returncode != 0
    (record,) = stopped.results()
    assert record["status"] == ("running" if how == signal.SIGKILL else "interrupted")
    assert "continuing from" in stopped(*overrides)
    assert_same_end(whole, stopped)


@pytest.mark.slow
def test_a_truncated_checkpoint_is_reported_and_the_one_before_it_used(tmp_path: Path) -> None:
    overrides = [*TINY, "model.dropout=0.2", "trainer.max_epochs=3", *SLOWED]
    whole, stopped = Program(tmp_path / "whole"), Program(tmp_path / "stopped")
    whole(*overrides)
    killed_midway(stopped, overrides, signal.SIGKILL)
    (previous,) = stopped.outputs.rglob("previous.ckpt")
    previous.with_name("last.ckpt").write_bytes(previous.read_bytes()[:1000])
    output = stopped(*overrides)
    assert "last.ckpt is not a readable checkpoint" in output
    assert "continuing from previous.ckpt" in output
    assert_same_end(whole, stopped)


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """On a real file system of 400 KB, then with room made."""
    overrides = [
        *TINY,
        "model.hidden_size=64",
        "model.dropout=0.2",
        "trainer.max_epochs=3",
        *SLOWED,
    ]
    whole, full = Program(tmp_path / "whole"), Program(tmp_path / "full")
    full.outputs.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(full.outputs)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system (root)")
    try:
        whole(*overrides)
        assert "the disk is full" in full(*overrides, status=2)
        again = full(*overrides, status=2)  # with no room made
        assert "Traceback" not in again
        assert len(again.strip().splitlines()) <= 6, again
        subprocess.run(["mount", "-o", "remount,size=20M", str(full.outputs)], check=True)
        assert "continuing from" in full(*overrides)
        assert_same_end(whole, full)
    finally:
        subprocess.run(["umount", str(full.outputs)], check=True)


@pytest.mark.slow
def test_a_fine_tuning_round_that_never_improves_keeps_what_it_started_from(
    program: Program,
) -> None:
    program(*TINY)
    (origin,) = program.outputs.glob("tiny/*")
    before, trained = program.results()[0], weights(program)
    worse = ["optimizer.lr=200", "task.validate_first=true"]
    program(*TINY, f"init_from={origin}", "name=round", *worse)
    (after,) = [record for record in program.results() if record["name"] == "round"]
    assert after["metrics"]["test/ppl"] == before["metrics"]["test/ppl"]
    (kept,) = program.outputs.glob("round/*/checkpoints/best.ckpt")
    for name, tensor in torch.load(kept, weights_only=True)["state_dict"].items():
        assert torch.equal(tensor, trained[name]), name


@pytest.mark.slow
def test_a_row_of_the_history_has_only_what_its_epoch_measured(program: Program) -> None:
    program(*TINY, "trainer.max_epochs=3", "+trainer.check_val_every_n_epoch=2")
    (history,) = program.outputs.rglob("history.csv")
    rows = list(csv.DictReader(history.open()))
    assert [bool(row["val/ppl"]) for row in rows] == [False, True, False]


def test_a_finished_run_is_not_run_again(program: Program) -> None:
    program(*TINY)
    (before,) = program.results()
    assert "is done already" in program(*TINY)
    assert program.results() == [before]
    assert "resume=never: the earlier run is kept" in program(*TINY, "resume=never")
    assert len(program.results()) == 2
