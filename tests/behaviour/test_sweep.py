"""A sweep goes on past a job that diverges, and runs nothing twice; W&B has one run a job, grouped."""

import pytest

from tests.conftest import TINY, Program

SWEEP = ["-m", *TINY, "optimizer.lr=1,5,1e30,10", "trainer.gradient_clip_val=null"]


@pytest.mark.slow
def test_one_diverged_job_of_four(program: Program) -> None:
    program(*SWEEP)
    before = program.results()
    assert sorted(record["status"] for record in before) == ["diverged", "done", "done", "done"]
    output = program(*SWEEP)
    assert output.count("already") == 4
    assert program.results() == before


@pytest.mark.slow
def test_wandb_offline_writes_one_run_a_job(program: Program) -> None:
    program("-m", *TINY, "seed=1,2", "logger=wandb", "trainer.max_epochs=1")
    runs = [path.name for path in program.outputs.rglob("offline-run-*") if path.is_dir()]
    assert len(runs) == 2, runs
    assert len({name.rsplit("-", 1)[1] for name in runs}) == 2, "each job has its own id"
