"""A sweep goes on past a job that diverges, and runs nothing twice; W&B has one run a job, grouped."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from tests.conftest import TINY, Program

FULL, LAST = 1, 4  # kinds of pieces in a LevelDB log: a whole record, the end of one
SWEEP = ["-m", *TINY, "optimizer.lr=1,5,1e30,10", "trainer.gradient_clip_val=null"]


@pytest.mark.slow
def test_one_diverged_job_of_four(program: Program) -> None:
    program(*SWEEP)
    before = program.results()
    assert sorted(record["status"] for record in before) == ["diverged", "done", "done", "done"]
    output = program(*SWEEP)
    assert output.count("already") == 4
    assert "1 job(s) of the sweep diverged: tiny (" in output
    lines = [
        line.split() for line in output.splitlines() if line.lstrip().startswith("optimizer.lr=")
    ]
    assert [line[:2] for line in lines] == [
        ["optimizer.lr=1", "done"],
        ["optimizer.lr=5", "done"],
        ["optimizer.lr=1e+30", "diverged"],
        ["optimizer.lr=10", "done"],
    ]
    assert {f"{record['metrics']['test/ppl']:.2f}" for record in before if record["metrics"]} == {
        line[3] for line in lines if line[1] == "done"
    }
    assert program.results() == before


@pytest.mark.slow
def test_wandb_offline_writes_one_run_a_job(program: Program) -> None:
    program(*TINY, "-m", "seed=1,2", "logger=wandb", "trainer.max_epochs=1")
    files = list(program.outputs.rglob("offline-run-*/*.wandb"))
    runs = [record.run for path in files for record in records(path) if record.HasField("run")]
    assert {run.run_group for run in runs} == {"tiny"}
    assert len({run.run_id for run in runs}) == len(files) == 2, "each job has its own id"
    for path in files:
        logged = " ".join(str(record) for record in records(path))
        assert "test/ppl" in logged
        assert "plots/curves" in logged
        assert "plots/embedding" in logged
        assert [r.exit.exit_code for r in records(path) if r.HasField("exit")] == [0]


def records(path: Path) -> Iterator[Record]:
    """A .wandb file is a LevelDB log: blocks of 32 KiB, records cut at their ends."""
    content, place, pieces = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (FULL, LAST):
            yield Record.FromString(pieces)
            pieces = b""
