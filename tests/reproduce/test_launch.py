"""Launching with a stand-in for run.py: order, resume, failures that stop only what needs them."""

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lit_seqlm.reproduce.launch import launch
from lit_seqlm.reproduce.plan import is_stale, plan, recipe_hash, state
from lit_seqlm.reproduce.table import load_table
from tests.reproduce.synthetic import plain_table, write

RUN = """
import json, os, pathlib, sys
given = dict(word.split("=", 1) for word in sys.argv[1:])
with open("calls.txt", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
folder = pathlib.Path(os.environ["FOLDERS"]).read_text()
folder = pathlib.Path(json.loads(folder)[" ".join(sys.argv[1:])])
if given.get("model.dropout") == "crash":
    sys.exit("it broke")
status = "diverged" if given.get("model.dropout") == "inf" else "done"
assert "init_from" not in given or (pathlib.Path(given["init_from"]) / "result.json").exists()
record = {"status": status, "metrics": {"test/ppl": 9.0}, "wall_seconds": 1}
(folder / "result.json").write_text(json.dumps(record))
sys.exit(0 if status == "done" else 2)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.py").write_text(RUN)
    monkeypatch.setenv("FOLDERS", str(tmp_path / "folders.json"))
    monkeypatch.setattr("lit_seqlm.reproduce.launch.POLL_SECONDS", 0.01)
    return tmp_path


def go(place: Path, plain, num_parallel=2):
    table = load_table(write(place, plain), "small")
    jobs = plan(table, table.rows)
    (place / "folders.json").write_text(
        json.dumps({" ".join(job.command): str(job.folder) for job in jobs})
    )
    kept = []
    with (place / "console.txt").open("w") as file:
        outcome = launch(
            jobs, num_parallel, Console(file=file, width=100), lambda job: kept.append(job.key)
        )
    return outcome, kept, jobs


def calls(place: Path) -> list[str]:
    return (place / "calls.txt").read_text().splitlines()


def test_what_is_needed_runs_first_and_nothing_runs_twice(place):
    outcome, kept, _ = go(place, plain_table())
    assert outcome.problems == []
    assert kept[0] == ("base", 7)
    assert sorted(kept) == [("base", 7), ("branch", 1), ("branch", 2)]
    assert calls(place)[0] == "experiment=small seed=7"
    assert (
        "base, seed 7: done, test/ppl 9.00, 1 s, outputs/small/seed_7"
        in (place / "console.txt").read_text()
    )
    _, kept, _ = go(place, plain_table())
    assert len(calls(place)) == 3  # resumed: nothing left to do
    assert len(kept) == 3
    assert "3 of 3 runs are there already" in (place / "console.txt").read_text()


def test_a_failure_does_not_stop_the_others_and_names_its_log(place):
    plain = plain_table()
    plain["rows"].append(
        {"id": "bad", "label": "bad", "experiment": "small", "overrides": ["model.dropout=crash"]}
    )
    plain["rows"].append(
        {"id": "after", "label": "after", "experiment": "small", "init_from": "bad"}
    )
    outcome, kept, jobs = go(place, plain)
    assert len(kept) == 3
    log = next(job.folder for job in jobs if job.row == "bad") / "launch.log"
    assert outcome.problems[0] == f"bad, seed 1: failed (exit 1): it broke Log: {log}"
    assert (
        outcome.problems[1] == "after, seed 1: not started, it needs bad, seed 1, which is failed"
    )
    assert len(outcome.problems) == 2


def test_a_diverged_run_is_a_result_and_is_not_run_again(place):
    plain = plain_table()
    plain["rows"][1]["overrides"] = ["model.dropout=inf"]
    outcome, kept, _ = go(place, plain)
    assert outcome.problems == []
    assert outcome.ended["branch", 1] == "diverged"
    assert len(kept) == 3
    go(place, plain)
    assert len(calls(place)) == 3


def test_two_rows_of_one_run_share_it(place):
    plain = plain_table()
    plain["rows"][1] = {**plain["rows"][0], "id": "same"}
    outcome, kept, _ = go(place, plain)
    assert outcome.problems == []
    assert kept == [("base", 7), ("same", 7)]
    assert len(calls(place)) == 1


def test_a_record_that_says_running_is_believed_only_while_a_process_holds_the_folder(tmp_path):
    import fcntl

    (tmp_path / "result.json").write_text('{"status": "running"}')
    assert state(tmp_path) == "stopped"
    with (tmp_path / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert state(tmp_path) == "running"
    assert state(tmp_path) == "stopped"
    assert state(tmp_path / "none") == "missing"


def test_a_run_of_another_recipe_is_stale(tmp_path):
    plain = plain_table()
    plain["rows"][0]["experiment"] = plain["rows"][1]["experiment"] = "ptb_lstm_cpu"
    table = load_table(write(tmp_path, plain), "small")
    base, *_ = jobs = plan(table, table.rows, str(tmp_path))
    assert not any(map(is_stale, jobs)), "nothing is there yet"
    base.folder.mkdir(parents=True)
    for found, expected in ((recipe_hash(base), False), ("0" * 8, True)):
        record = {"status": "done", "config_hash": found}
        (base.folder / "result.json").write_text(json.dumps(record))
        assert is_stale(base) is expected
    assert recipe_hash(base) != recipe_hash(jobs[1]), "another dropout is another recipe"


def test_the_runs_use_this_python(place, monkeypatch):
    started = []
    monkeypatch.setattr(
        "subprocess.Popen", lambda command, **kwargs: started.append((command, kwargs))
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    from lit_seqlm.reproduce.launch import start

    table = load_table(write(place, plain_table()), "small")
    start(plan(table, table.rows)[0], 4)
    command, kwargs = started[0]
    assert command == [sys.executable, "run.py", "experiment=small", "seed=7"]
    assert kwargs["env"]["OMP_NUM_THREADS"] == "2"
