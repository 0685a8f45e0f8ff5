"""What a finished run is good for: evaluation elsewhere, further training, a notebook."""

import csv
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import lit_seqlm
from tests.conftest import TINY, Program


@pytest.mark.slow
def test_an_evaluation_takes_model_and_data_from_the_run(program: Program) -> None:
    program(*TINY)
    (run,) = program.outputs.glob("tiny/*")
    program("task=evaluate", f"init_from={run}")
    trained, evaluated = sorted(program.results(), key=lambda record: record["init_from"] or "")
    assert evaluated["metrics"]["test/nll"] == trained["metrics"]["test/nll"]
    assert evaluated["init_from"] == str(run)
    (folder,) = program.outputs.glob("tiny_evaluate/*")
    assert (folder / "result.json").exists()
    assert evaluated["name"] == "tiny_evaluate"
    assert evaluated["run_id"] != trained["run_id"]
    assert "is done already" in program("task=evaluate", f"init_from={run}")
    program(*TINY, "resume=never", "trainer.max_epochs=3", f"hydra.run.dir={run}")
    assert "from weights that have changed" in program(
        "task=evaluate", f"init_from={run}", status=2
    )


@pytest.mark.slow
def test_the_adversary_makes_training_harder_the_larger_its_radius(program: Program) -> None:
    radii = ("0.0", "0.3", "1.0")
    many = [*TINY, "regularizer=adversarial", f"regularizer.radius={','.join(radii)}"]
    program("-m", *many, "trainer.max_epochs=4", "logger=none")
    last = {}
    for path in program.outputs.rglob("history.csv"):
        config = OmegaConf.load(path.parent / ".hydra/config.yaml")
        rows = list(csv.DictReader(path.open()))
        last[str(config.regularizer.radius)] = float(rows[-1]["train/ppl"])
    assert last["0.0"] < last["0.3"] < last["1.0"], last


@pytest.mark.slow
def test_an_evaluation_on_other_text_keeps_the_vocabulary(program: Program) -> None:
    program(*TINY)
    (run,) = program.outputs.glob("tiny/*")
    program(
        "task=evaluate",
        f"init_from={run}",
        "data=synthetic",
        "data.source.seed=5",
        "name=elsewhere",
    )
    (record,) = [r for r in program.results() if r["name"] == "elsewhere"]
    home = next(r for r in program.results() if r["name"] == "tiny")
    assert record["metrics"]["test/ppl"] > 1.5 * home["metrics"]["test/ppl"], (
        "another chain, never learned"
    )


@pytest.mark.slow
def test_a_loaded_model_gives_the_runs_perplexity(program: Program) -> None:
    """`lit_seqlm.load` and twenty lines of plain torch, without the program's loaders, metrics or fused loss."""
    program(*TINY)
    (run,) = program.outputs.glob("tiny/*")
    loaded = lit_seqlm.load(run)
    from lit_seqlm.data.synthetic import SyntheticText

    source = SyntheticText(vocab_size=50, num_tokens=20000, branching=4, seed=0)
    stream = torch.from_numpy(loaded.tokenizer.encode(source.lines("test"))).long()
    with torch.no_grad():
        hidden = loaded.model(stream[None, :-1]).hidden_BTD[0]
        log_prob = loaded.model.output_embedding.log_prob(hidden)
    nll = -log_prob[torch.arange(len(hidden)), stream[1:]].double().mean()
    (record,) = program.results()
    assert math.exp(nll) == pytest.approx(record["metrics"]["test/ppl"], rel=1e-5)


@pytest.mark.slow
def test_a_run_starts_from_anothers_weights(program: Program) -> None:
    program(*TINY)
    (run,) = program.outputs.glob("tiny/*")
    program(*TINY, "name=second", f"init_from={run}", "optimizer.lr=1e-9", "trainer.max_epochs=1")
    first, second = (
        next(r for r in program.results() if r["name"] == name) for name in ("tiny", "second")
    )
    assert second["metrics"]["test/nll"] == pytest.approx(first["metrics"]["test/nll"], rel=1e-6)


@pytest.mark.slow
def test_every_model_runs_from_the_command_line(program: Program, tmp_path: Path) -> None:
    small = {
        "awd_lstm": ["model.embedding_size=16"],
        "mos": ["model.embedding_size=16", "model.last_size=16", "model.num_experts=2"],
        "qrnn": ["model.embedding_size=16"],
        "decoder": [
            "model.num_heads=2",
            "model.feed_forward_size=32",
            "data.eval_seq_len=32",
            "data.eval_stride=16",
        ],
    }
    for model, options in small.items():
        program(*TINY, f"model={model}", *options, "trainer.max_epochs=1", f"name={model}")
    assert [record["status"] for record in program.results()] == ["done"] * len(small)
