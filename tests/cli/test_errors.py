"""The user's mistakes: one or two lines that say what to do, exit status 2, no traceback, nothing lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, Program


def message(program: Program, *overrides: str) -> str:
    output = program(*overrides, status=2)
    assert "Traceback" not in output
    last = [line for line in output.splitlines() if line.strip()]
    return "\n".join(last[-2:])


MISTAKES = {
    "a misspelt key": (["model.hiden_size=3"], "Did you mean hidden_size?"),
    "a misspelt key in a file's place": (["+model.hiden_size=3"], "Did you mean hidden_size?"),
    "a misspelt group": (["modle=lstm"], "Did you mean model?"),
    "an unknown corpus": (["data=ptbb"], "Did you mean ptb?"),
    "an unknown experiment": (["experiment=ptb_lstm_smal"], "Did you mean ptb_lstm_small?"),
    "an option of another choice": (
        ["regularizer.radius=0.1"],
        "'radius' belongs to regularizer=adversarial",
    ),
    "a wrong type": (["seed=one"], "could not be converted to Integer"),
    "a wrong choice": (
        ["regularizer=adversarial", "regularizer.direction=up"],
        "choose one of exact, last_write",
    ),
    "a negative radius": (
        ["regularizer=adversarial", "regularizer.radius=-1"],
        "a radius is zero or more",
    ),
    "a missing checkpoint": (["init_from=nowhere"], "no checkpoint there"),
    "evaluation without weights": (["task=evaluate"], "Say init_from=RUN_FOLDER"),
    "a device that is not there": (["trainer.accelerator=gpu"], "trainer=cpu"),
    "an unknown device": (["trainer.accelerator=gpuu"], "cpu"),
    "a word for a number": (["optimizer.lr=abc"], "optimizer.lr=abc: it takes a number"),
    "a fraction for a count": (["model.num_layers=1.5"], "it takes a whole number"),
    "a value that torch refuses": (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
    "a negative clip": (["trainer.gradient_clip_val=-1"], "a norm is at least 0"),
    "more devices than one": (["trainer.devices=2"], "say how they train one model: strategy=ddp"),
    "an unknown number to watch": (["monitor=val/pp"], "Did you mean val/ppl?"),
    "an unknown number to watch, averaged": (
        ["monitor=val/pp", "optimizer=ntasgd"],
        "Did you mean val/ppl?",
    ),
    "a decoder without windows": (["model=decoder"], "Say data.eval_stride=N"),
    "signs that the command line reads otherwise": (["name=~/x"], "needs quotes inside quotes"),
    "a negative seed": (["seed=-1"], "seed=-1: it must be at least 0"),
    "a negative size": (["model.hidden_size=-4"], "negative dimension -4"),
    "no epochs": (["trainer.max_epochs=0"], "let it run for an epoch"),
    "a folder that cannot be made": (["paths.output_dir=/proc/nothing"], "paths.output_dir=FOLDER"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(program: Program, mistake: str) -> None:
    overrides, expected = MISTAKES[mistake]
    assert expected in message(program, *TINY, *overrides)


@pytest.mark.slow
def test_weights_of_another_shape_or_vocabulary(program: Program) -> None:
    program(*TINY)
    (run,) = program.outputs.glob("tiny/*")
    assert "has other shapes for" in message(
        program, *TINY, f"init_from={run}", "model.hidden_size=8"
    )
    other = message(program, *TINY, f"init_from={run}", "data.source.vocab_size=60")
    assert "its vocabulary of 50 tokens is not this run's, of 60" in other


@pytest.mark.slow
def test_divergence_is_recorded_and_nothing_is_overwritten(program: Program) -> None:
    assert "training diverged" in message(
        program, *TINY, "optimizer.lr=1e30", "trainer.gradient_clip_val=null"
    )
    (record,) = program.results()
    assert record["status"] == "diverged"
    (log,) = program.outputs.rglob("run.log")
    assert "training diverged" in log.read_text()
    again = message(program, *TINY, "optimizer.lr=1e30", "trainer.gradient_clip_val=null")
    assert "is diverged already" in again
    assert program.results() == [record]


@pytest.mark.slow
def test_ctrl_c_ends_with_the_shells_status(program: Program) -> None:
    process = program.start(*TINY, "trainer.max_epochs=500")
    while not list(program.outputs.rglob("history.csv")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command continues" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_text_that_changed_is_another_run(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(["one two three\n" * 50] * 20))
    run = ["data=text_folder", f"data.source.folder={folder}", "model.hidden_size=8", "name=mine"]
    program(*run)
    assert "is done already" in program(*run)
    with (folder / "a.txt").open("a") as file:
        file.write("\nthree two one\n")
    assert "on a text that has changed since" in message(program, *run)


@pytest.mark.slow
def test_two_processes_in_one_folder(program: Program) -> None:
    slow = [*TINY, "trainer.max_epochs=200"]
    first = program.start(*slow)
    try:
        while not list(program.outputs.rglob("history.csv")):
            assert first.poll() is None
        assert "another process is at work" in message(program, *slow)
    finally:
        first.kill()
        first.wait()


@pytest.mark.slow
def test_a_changed_experiment_is_not_taken_for_the_old_one(program: Program) -> None:
    program(*TINY)
    (path,) = program.outputs.rglob("result.json")
    path.write_text(path.read_text().replace('"config_hash": "', '"config_hash": "0'))
    assert "holds a run of another config" in message(program, *TINY)


def test_help_needs_no_torch() -> None:
    """`run.py --help` composes the config without importing what training needs."""
    code = "import sys, runpy; sys.argv = ['run.py', '--help']\ntry: runpy.run_path('run.py', run_name='__main__')\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "experiment" in done.stdout


def test_run_is_short() -> None:
    assert len(Path(ROOT / "run.py").read_text().splitlines()) <= 30
