"""From SMILES to a property: pretrain, fine-tune, probe; killed midway, resumed to the same numbers."""

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.behaviour.test_resume import SLOWED, assert_same_end, killed_midway
from tests.conftest import Program

MODEL = ["model=linear_encoder_smoke"]


def molecules(number: int, seed: int) -> list[str]:
    """Chains with branches: what they weigh follows from their atoms."""
    rng = np.random.default_rng(seed)
    pieces = ["C", "CC", "C(C)", "O", "N", "C(=O)", "C(O)", "CCC", "C(F)", "C(N)"]
    return ["C" + "".join(rng.choice(pieces, rng.integers(2, 8))) + "C" for _ in range(number)]


def value(smiles: str) -> float:
    return smiles.count("O") * 2.0 - smiles.count("N") + smiles.count("F") * 0.5


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "made.csv"
    lines = [f"{one},{value(one)},{int('F' in one)}" for one in dict.fromkeys(molecules(900, 0))]
    path.write_text("smiles,score,fluorinated\n" + "\n".join(lines) + "\nnonsense,1,0\n")
    return path


def labelled(table: Path, target: str, kind: str) -> list[str]:
    return [
        "data=molecule_table", f"data.source.path={table}", f"data.source.target_columns={target}",
        f"data.source.kind={kind}", "data.source.split=random", "data.source.repeats=drop",
        "data.source.cache_dir=null", "data.batch_size=16", f"objective={kind}",
    ]  # fmt: skip


def finetune(table: Path, epochs: int) -> list[str]:
    return [
        *MODEL, *labelled(table, "score", "regression"), "task=finetune", "head=molformer", "optimizer=adamw",
        "optimizer.lr=3e-3", "scheduler=run_cosine", "monitor=val/loss", "name=tuned", f"trainer.max_epochs={epochs}",
        "trainer.gradient_clip_val=1.0", "task.baselines.names=[mean,ridge_tokens]",
        "task.baselines.cache_dir=null",
    ]  # fmt: skip


def test_fine_tuning_learns_what_the_molecule_is_made_of(tmp_path: Path, table: Path) -> None:
    program = Program(tmp_path)
    output = program(*finetune(table, 12))
    (result,) = program.results()
    metrics = result["metrics"]
    assert metrics["test/mae/score"] < 0.5 * metrics["baseline/mean/mae/score"]
    assert result["headline"] == "test/std_mae"
    assert result["card"]["audit"]["sizes"]["train"] > 500
    assert "nonsense" not in output or "invalid" in output
    kept = np.load(next(tmp_path.rglob("predictions.npz")))
    error = np.abs(kept["test_predictions"] - kept["test_labels"]).mean()
    assert metrics["test/mae/score"] == pytest.approx(float(error))


@pytest.mark.slow
def test_fine_tuning_resumes_bit_for_bit(tmp_path: Path, table: Path) -> None:
    whole, stopped = Program(tmp_path / "whole"), Program(tmp_path / "stopped")
    recipe = [*finetune(table, 3), *SLOWED]
    whole(*recipe)
    killed_midway(stopped, recipe, signal.SIGKILL)
    stopped(*recipe)
    assert_same_end(whole, stopped)


@pytest.mark.slow
def test_pretrain_then_probe_and_fine_tune(tmp_path: Path, table: Path) -> None:
    """The whole way, from unlabelled strings to a frozen and a fine-tuned property."""
    for split, seed in (("train", 1), ("test", 2)):
        lines = "\n".join(molecules(600, seed))
        (tmp_path / f"{split}.csv").write_text(f"SMILES\n{lines}\n")
    program = Program(tmp_path / "outputs")
    pretrain = [
        *MODEL, "data=moses", f"data.source.data_dir={tmp_path}", "data.source.train=train.csv",
        "data.source.test=test.csv", "data.source.num_heldout=50", "data.source.cache_dir=null",
        "data.token_budget=512",
        "objective=masked_lm", "optimizer=adamw", "optimizer.lr=5e-3", "scheduler=run_cosine", "name=pretrained",
        "trainer.max_epochs=6", "trainer.gradient_clip_val=1.0",
    ]  # fmt: skip
    program(*pretrain)
    (result,) = program.results()
    assert result["metrics"]["test/ppl"] < 6
    assert 0 < result["metrics"]["test/accuracy"] < 1
    (folder,) = program.outputs.glob("pretrained/seed_1*")
    origin = f"init_from={folder}"
    for name, more in {
        "linear": ["head=linear", "task=probe", "task.cache_dir=null"],
        "mlp": ["head=molformer", "task=probe", "task.cache_dir=null", "task.epochs=5"],
        "tuned": ["head=molformer", "task=finetune", "optimizer=adamw", "monitor=val/loss"],
    }.items():
        common = [
            "task.baselines.names=[mean]",
            "task.baselines.cache_dir=null",
        ]
        program(*labelled(table, "score", "regression"), *more, *common, origin, f"name={name}")
    found = {one["name"]: one["metrics"] for one in program.results()}
    mean = found["linear"]["baseline/mean/mae/score"]
    assert found["linear"]["test/mae/score"] < 0.8 * mean
    assert found["mlp"]["test/mae/score"] < mean
    assert found["tuned"]["test/mae/score"] < mean


@pytest.mark.slow
def test_classification_with_a_head(tmp_path: Path, table: Path) -> None:
    program = Program(tmp_path)
    program(
        *MODEL, *labelled(table, "fluorinated", "classification"), "task=finetune", "head=molformer",
        "optimizer=adamw", "optimizer.lr=3e-3", "monitor=val/loss", "name=classes", "trainer.max_epochs=8",
        "task.baselines.names=[prior]", "task.baselines.cache_dir=null",
    )  # fmt: skip
    (result,) = program.results()
    assert result["metrics"]["test/auroc"] > 0.9
    assert result["metrics"]["baseline/prior/auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=synthetic", "task=finetune", "head=linear", "objective=regression"], "labelled"),
        (["objective=causal_lm"], "objective=regression"),
        (["model=lstm"], "Choose an encoder"),
        (["data.target=scor"], "Try data.target=score"),
        (["head=none_such"], "there is no such option"),
        (["task=probe"], "needs trained weights"),
        (["monitor=val/nll"], "there is no such number"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, table: Path, overrides: list[str], said: str) -> None:
    words = [o.partition("=")[0] for o in overrides]
    kept = [o for o in finetune(table, 1) if o.partition("=")[0] not in words]
    if "data" in words or "task" in words or "model" in words:
        kept = [o for o in kept if not o.startswith(tuple(f"{w}." for w in words))]
    output = Program(tmp_path)(*kept, *overrides, status=2)
    assert said in output, output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_sweep_makes_a_model_for_each_target_and_seed(program: Program, table: Path) -> None:
    """As `-m experiment=qm9_molformer data.target=gap,homo seed=1,2` does, on two columns of a small table."""
    recipe = [*finetune(table, 1), "data.source.target_columns=[score,fluorinated]"]
    output = program("-m", *recipe, "data.target=score,fluorinated", "seed=1,2")
    results = program.results()
    found = [
        (name.removeprefix("test/mae/"), record["seed"])
        for record in results
        for name in record["metrics"]
        if name.startswith("test/mae/")
    ]
    assert sorted(found) == [("fluorinated", 1), ("fluorinated", 2), ("score", 1), ("score", 2)]
    assert len({record["run_id"] for record in results}) == 4
    table_lines = [line for line in output.splitlines() if line.lstrip().startswith("data.target=")]
    assert len(table_lines) == 4, "the sweep ends with a line for each job"
