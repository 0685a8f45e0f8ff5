"""The program experiments/reproduce.py, and that what is committed is what it renders."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def reproduce(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "experiments" / "reproduce.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_committed_tables_are_rendered_and_within_tolerance():
    done = reproduce("check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dry_run_lists_commands_and_folders():
    done = reproduce("launch", "wang2019_adversarial/ptb_lstm", "--row", "small", "--dry-run")
    line = "python run.py experiment=ptb_lstm_small seed=1   # outputs/ptb_lstm_small/seed_1\n"
    assert (done.returncode, done.stdout) == (0, line)


def test_a_mistake_is_one_line_and_status_two():
    done = reproduce("status", "wang2019_adversarial/ptb_lsm")
    assert done.returncode == 2
    assert done.stderr.startswith("no table 'ptb_lsm' in experiments/wang2019_adversarial. Did")
    assert done.stderr.count("\n") == 1
