"""Caches from the command line: one pass, one card, and readings that go on after a kill."""

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import TINY, Program

STREAM = ["data=synthetic", "data.source.num_tokens=150000", "data.eval_seq_len=64"]
MEMORIES = [
    "cache=mixture", "search@cache.components.unbounded.store=ivfpq_small",
    "cache.components.unbounded.store.code_bytes=8", "cache.components.unbounded.store.first_build=4096",
    "cache.components.unbounded.k=32", "cache.components.local.size=200", "task.weights=tuned",
    "cache.components.local.grid.theta=[0.1,1.0]",
]  # fmt: skip


@pytest.fixture
def trained(program: Program) -> Path:
    program(*TINY)
    (run,) = program.outputs.glob("tiny/*")
    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_a_stopped_reading_ends_as_an_uninterrupted_one(
    program: Program, trained: Path, how: signal.Signals
) -> None:
    command = ["task=evaluate", f"init_from={trained}", *STREAM, *MEMORIES, "task.every_seconds=0"]
    program(*command, "name=whole")
    process = program.start(*command, "name=stopped")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(program.outputs.glob("stopped/*/reading.ckpt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(how)
    assert process.wait(timeout=60) != 0
    assert "going on after" in program(*command, "name=stopped")
    whole, stopped = (
        next(r for r in program.results() if r["name"] == n) for n in ("whole", "stopped")
    )
    assert stopped["metrics"] == whole["metrics"]
    assert stopped["card"] == whole["card"]
    assert stopped["attempts"] == 2
    assert not list(program.outputs.rglob("reading.ckpt"))


@pytest.mark.slow
def test_a_card_says_what_was_tuned_on_what(program: Program, trained: Path) -> None:
    said = program("task=evaluate", f"init_from={trained}", *MEMORIES, "name=card")
    (record,) = [r for r in program.results() if r["name"] == "card"]
    card, metrics = record["card"], record["metrics"]
    assert card["tuned_on"] == "validation alone"
    assert card["settings"]["local"]["theta"] in (0.1, 1.0)
    assert card["memory"]["unbounded"]["bytes_per_state"] > 0
    assert metrics["test/ppl"] <= metrics["test/ppl_static"]
    assert "unbounded" in said
    assert "static" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache.thetta=1", "Did you mean theta"),
        ("cache.grid.thetas=[1]", "Did you mean theta"),
        ("task.weights=tunned", "Did you mean tuned"),
        ("task.key=ffn_input", "this model has none"),
        ("task.new_words=all", "unknown, uniform, character"),
        ("cache=nearest", "cache"),
    ],
)
def test_typing_errors_end_in_one_message(
    program: Program, trained: Path, override: str, message: str
) -> None:
    cache = [] if override.startswith("cache=") else ["cache=local"]
    said = program("task=evaluate", f"init_from={trained}", *cache, override, status=2)
    assert message in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_store_is_kept_for_the_next_evaluation_and_refused_for_other_weights(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    kept = ["cache=knn", "search@cache.store=exact", f"cache.folder={tmp_path}/store"]
    command = ["task=evaluate", *kept, "cache.k=8"]
    first = program(*command, f"init_from={trained}", "name=first")
    assert "training tokens" in first
    assert "states found" in program(*command, f"init_from={trained}", "name=second")
    one, two = (next(r for r in program.results() if r["name"] == n) for n in ("first", "second"))
    assert one["metrics"] == two["metrics"]
    program(*TINY, "seed=2")
    other = next(path for path in program.outputs.glob("tiny/*") if path != trained)
    refused = program(*command, f"init_from={other}", "name=other", status=2)
    assert "store.memory" in refused
