"""Runs of the real program on a synthetic corpus, in a folder of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
TINY = ["data=synthetic", "model.hidden_size=16", "trainer.max_epochs=2", "name=tiny"]


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Test workers share the cores."""
    torch.set_num_threads(1)


class Program:
    """`python run.py ...` with its outputs in a temporary folder."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.env = os.environ | {
            "LIT_SEQLM_OUTPUTS": str(outputs),
            "OMP_NUM_THREADS": "1",
            "WANDB_SILENT": "true",
        }

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "run.py"), *overrides]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *overrides: str, status: int = 0) -> str:
        """Run to the end; the output, if the exit status is the expected one."""
        process = self.start(*overrides)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, (
            f"exit status {process.returncode}, expected {status}:\n{output}"
        )
        return output

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.outputs.rglob("result.json"))]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "outputs")
