"""Twenty steps of each model family on a synthetic twin: a change of numbers must be meant.

Regenerate with `python -m tests.golden.test_golden` and say in the commit why the numbers moved. The tolerance
leaves room for the summation order of other CPUs, not for another method.
"""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lit_seqlm.config import build, register
from lit_seqlm.engine import assemble

HERE = Path(__file__).parent
CONF = HERE.parents[1] / "conf"
TOLERANCE = 1e-4  # relative, of the mean training loss
RADIUS = 10.0  # so large that twenty steps show it
STEPS = 20
EXPERIMENTS = {
    "ptb_lstm_cpu": ["model.hidden_size=16"],
    "ptb_awd_lstm_cpu": ["model.hidden_size=16", "model.embedding_size=16"],
    "ptb_mos_cpu": [
        "model.hidden_size=16",
        "model.embedding_size=16",
        "model.last_size=16",
        "model.num_experts=3",
    ],
    "ptb_qrnn_cpu": ["model.hidden_size=16", "model.embedding_size=16"],
    "ptb_decoder_cpu": [
        "model.hidden_size=16",
        "model.num_heads=2",
        "optimizer.lr=0.05",
        "scheduler.make.warmup_steps=1",
    ],
}
CASES = [(name, regularizer) for name in EXPERIMENTS for regularizer in ("none", "adversarial")]


def loss_after_twenty_steps(name: str, regularizer: str, folder: Path) -> float:
    """Mean training loss in nats per token over the steps."""
    overrides = [
        f"experiment={name}", *EXPERIMENTS[name], f"regularizer={regularizer}", "data=synthetic",
        f"trainer.limit_train_batches={STEPS}", "trainer.max_epochs=1", "callbacks=none", "logger=none",
        f"paths.run_dir={folder}", "+trainer.enable_checkpointing=false", "+trainer.enable_progress_bar=false",
        "trainer.precision=64-true",  # so large a radius makes a CPU's own rounding grow beyond the tolerance
    ]  # fmt: skip
    if regularizer == "adversarial":
        overrides.append(f"regularizer.radius={RADIUS}")
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", overrides=overrides)
        whole = assemble(cfg, build(cfg.data))
    whole.trainer.fit(whole.task, datamodule=whole.data)
    return float(whole.trainer.callback_metrics["train/nll"])


@pytest.mark.parametrize(("name", "regularizer"), CASES)
def test_twenty_steps_give_the_known_loss(name: str, regularizer: str, tmp_path: Path) -> None:
    expected = json.loads((HERE / "golden.json").read_text())[f"{name} {regularizer}"]
    assert loss_after_twenty_steps(name, regularizer, tmp_path) == pytest.approx(
        expected, rel=TOLERANCE
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_adversary_shows_in_them(name: str) -> None:
    golden = json.loads((HERE / "golden.json").read_text())
    plain, adversarial = golden[f"{name} none"], golden[f"{name} adversarial"]
    assert abs(adversarial - plain) > 5 * TOLERANCE * plain


if __name__ == "__main__":
    found = {f"{n} {r}": round(loss_after_twenty_steps(n, r, HERE), 6) for n, r in CASES}
    (HERE / "golden.json").write_text(json.dumps(found, indent=1) + "\n")
