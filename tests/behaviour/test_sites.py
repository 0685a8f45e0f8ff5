"""From labelled sites to classes of every row of a file; whatever the sites are of."""

import csv
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import lit_seqlm
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.contacts import DEFINITIONS
from lit_seqlm.task.limits import CHOICE
from tests.behaviour.test_predict import run
from tests.behaviour.test_resume import SLOWED, assert_same_end, killed_midway
from tests.conftest import Program
from tests.made_sites import CLASSES, MadeSites

HEADS = {"residue": "residue_linear", "pair": "contact_tape_torch", "chain": "linear"}
MODEL = ["model=mlm_nano", "model.num_layers=1", "model.hidden_size=32", "model.num_heads=2", "model.dropout=0",
         "model.embedding_dropout=0"]  # fmt: skip


def made(site: str, number: int = 8, spread: int = 6) -> list[str]:
    data_of = {"residue": "secondary_structure", "pair": "contacts_pdb", "chain": "remote_homology"}
    source = f"_target_:tests.made_sites.MadeSites,data_dir:'',site:{site},number:{number},spread:{spread}"
    return [f"data={data_of[site]}", "~data.source", f"+data.source={{{source}}}"]


def training(site: str, epochs: int, *overrides: str) -> list[str]:
    return [*made(site), *MODEL, f"head={HEADS[site]}", *(["head.dropout=0"] if site == "pair" else []),
            "task=label_sites", "objective=classes", "optimizer=adamw", "optimizer.lr=1e-2", "monitor=val/loss",
            f"trainer.max_epochs={epochs}", "trainer.gradient_clip_val=1", "logger=none", *overrides]  # fmt: skip


def kept(folder: Path) -> dict[str, Any]:
    with np.load(folder / "predictions.npz") as arrays:
        return dict(arrays)


def answers(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of each kind of site."""
    folder = tmp_path_factory.mktemp("runs")
    for site in HEADS:
        run(folder / site, *training(site, 3))
    yield folder
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("site", HEADS)
def test_eight_chains_are_learnt_by_heart(site: str, tmp_path: Path) -> None:
    often = "+trainer.check_val_every_n_epoch=80"
    result = run(tmp_path / "run", *training(site, 80, often))
    history = answers(tmp_path / "run" / "history.csv")
    assert float(history[-1]["train/loss"]) < 0.05
    assert result["status"] == "done"


def test_the_numbers_are_those_of_the_kept_predictions(runs: Path) -> None:
    """A loop over what is in `predictions.npz` gives every share again, and each test has its own."""
    for site in ("residue", "chain"):
        metrics = metrics_of(runs / site)
        arrays = kept(runs / site)
        for test in ("first", "second"):
            label = arrays[f"{test}_labels"]
            found = arrays[f"{test}_probabilities"].argmax(1)
            assert metrics[f"{test}/q"] == pytest.approx((label == found).mean())
            assert metrics[f"{test}/error"] == pytest.approx((label != found).mean())
            assert len(arrays[f"{test}_names"]) == 8
            assert metrics[f"{test}/sites"] == len(label)
            assert metrics[f"{test}/q_low"] <= metrics[f"{test}/q"] <= metrics[f"{test}/q_high"]
        assert metrics["test/q"] == metrics["first/q"]
    arrays, metrics = kept(runs / "residue"), metrics_of(runs / "residue")
    assert arrays["first_lengths"].sum() == len(arrays["first_labels"]) == metrics["first/sites"]
    assert 0 < metrics["first/sites_masked"] < metrics["first/sites"]


def metrics_of(folder: Path) -> dict[str, float]:
    result = json.loads((folder / "result.json").read_text())
    assert result["headline"] == "test/error"
    assert result["card"]["made"] in HEADS
    return result["metrics"]


def test_the_baseline_is_the_commonest_class_of_the_training_labels(runs: Path) -> None:
    for site in ("residue", "chain"):
        metrics, arrays = metrics_of(runs / site), kept(runs / site)
        labels = np.hstack(MadeSites("", site, 8, 6).table("train", None).labels)
        share = (arrays["second_labels"] == np.bincount(labels).argmax()).mean()
        assert metrics["baseline/majority/second/q"] == pytest.approx(share)


def test_contacts_have_every_definition_and_a_baseline_by_separation(runs: Path) -> None:
    metrics, arrays = metrics_of(runs / "pair"), kept(runs / "pair")
    names = [
        f"p_at_l5_{which}"
        for which in ("tape_torch", "tape2019_train", "plm_megatron", "esm_short", "esm_local")
    ]
    for name in names:
        assert 0 <= metrics[f"first/{name}"] <= 1
        assert 0 <= metrics[f"baseline/separation/first/{name}"] <= 1
    lengths = arrays["first_lengths"]
    assert len(arrays["first_labels"]) == (lengths * (lengths - 1) // 2).sum()


def test_the_definitions_of_contact_precision_stand_beside_the_numbers(runs: Path) -> None:
    cards = {site: json.loads((runs / site / "result.json").read_text())["card"] for site in HEADS}
    assert cards["pair"]["definitions"] == DEFINITIONS
    assert all("over distinct sequences" in card["intervals"] for card in cards.values())
    assert all("definitions" not in cards[site] for site in ("residue", "chain"))


def test_a_loss_counts_the_pairs_that_are_learnt(tmp_path: Path) -> None:
    """By a loop over the kept predictions, which have the near pairs too, as the precisions do."""
    source = "+data.source={_target_:tests.made_sites.FarContacts,data_dir:'',number:8,spread:6}"
    said = [word for word in training("pair", 1) if not word.startswith("+data.source")]
    result = run(tmp_path / "run", *said, source)
    for stage, split in (("val", "valid"), ("first", "first")):
        arrays, start, losses = kept(tmp_path / "run"), 0, []
        for length in arrays[f"{split}_lengths"]:
            for i in range(length):
                for j in range(i + 1, length):
                    label, chance = (
                        arrays[f"{split}_{of}"][start] for of in ("labels", "probabilities")
                    )
                    assert label >= 0
                    start += 1
                    if j - i >= 6:
                        losses.append(-np.log(float(chance) if label == 1 else 1 - float(chance)))
        assert start == len(arrays[f"{split}_labels"])
        assert result["metrics"][f"{stage}/loss"] == pytest.approx(np.mean(losses), abs=2e-4)
    assert "first/p_at_l5_esm_short" in result["metrics"]
    assert not [name for name in result["metrics"] if "local" in name]  # 3 to 5 apart: not learnt
    assert result["card"]["no_numbers"] == "local: pairs nearer than 6 were not learnt"


def test_a_limit_on_batches_is_told_and_its_baseline_is_of_the_same_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ["data.eval_budget=30", "trainer.limit_test_batches=2", "trainer.limit_val_batches=1"]
    result = run(tmp_path / "run", *training("residue", 1, *limits))
    arrays, metrics = kept(tmp_path / "run"), result["metrics"]
    num_rows = len(arrays["first_names"])
    assert 2 <= num_rows < 8
    said = f"{num_rows} of 8 rows, the shortest (trainer.limit_test_batches=2)"
    assert result["card"]["scored_in_part"]["first"] == said
    assert "limit_val_batches=1" in result["card"]["scored_in_part"][CHOICE]
    assert f"first: scored in part, so its numbers are not the split's: {said}" in caplog.text
    labels = np.hstack(MadeSites("", "residue", 8, 6).table("train", None).labels)
    share = (arrays["first_labels"] == np.bincount(labels).argmax()).mean()
    assert metrics["baseline/majority/first/q"] == pytest.approx(share)
    assert metrics["baseline/majority/first/sequences"] == metrics["first/sequences"] == num_rows


def test_what_is_scored_as_a_whole_says_nothing_of_limits(runs: Path) -> None:
    for site in HEADS:
        card = json.loads((runs / site / "result.json").read_text())["card"]
        assert "scored_in_part" not in card


def test_what_a_task_does_not_ask_for_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "a", *training("chain", 1, "regularizer=adversarial", "regularizer.radius=0.1"))
    told = "regularizer=adversarial does nothing: task=label_sites asks for no regularizer"
    assert caplog.text.count("does nothing") == caplog.text.count(told) == 1
    caplog.clear()
    run(tmp_path / "b", *training("chain", 1, "regularizer=none", "cache=none"))
    assert "does nothing" not in caplog.text


@pytest.mark.parametrize("site", HEADS)
def test_a_loaded_model_says_what_the_run_predicted(
    runs: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sequence at a time, without padding."""
    monkeypatch.setattr("lit_seqlm.config.refuse_foreign", lambda node, where: None)
    loaded, arrays = lit_seqlm.load(runs / site), kept(runs / site)
    assert loaded.classes == CLASSES[site]
    table = MadeSites("", site, 8, 6).table("first", None)
    found = []
    for sequence in table.sequences:
        tokens = torch.from_numpy(loaded.tokenizer.encode([sequence])[0].astype(np.int64))[None]
        with torch.no_grad():
            probability = loaded.model(tokens).softmax(-1)[0].numpy()
        if site == "pair":
            rows, columns = np.triu_indices(len(sequence), 1)
            probability = probability[rows + 1, columns + 1, 1]
        found.append(probability[1:] if site == "residue" else np.atleast_1d(probability))
    whole = np.concatenate(found).reshape(arrays["first_probabilities"].shape)
    np.testing.assert_allclose(arrays["first_probabilities"], whole, atol=2e-3)


def test_a_frozen_trunk_does_not_change(runs: Path, tmp_path: Path) -> None:
    """Bit for bit, and its head learns all the same what the states tell."""
    run(
        tmp_path / "run",
        *training("residue", 3),
        "task.trunk=frozen",
        f"init_from={runs / 'chain'}",
    )
    theirs, mine = (torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
                    for folder in (runs / "chain", tmp_path / "run"))  # fmt: skip
    trunk = [name for name in theirs if name.startswith("model.trunk.")]
    assert trunk
    assert all(torch.equal(theirs[name], mine[name]) for name in trunk)
    history = answers(tmp_path / "run" / "history.csv")
    assert float(history[-1]["train/loss"]) < float(history[0]["train/loss"])


@pytest.mark.parametrize(
    ("site", "overrides", "message"),
    [
        ("pair", ["head=residue_linear"], "labels are of pairs.*say head=contact_tape_torch"),
        ("residue", ["head=linear"], "labels are of residues.*say head=residue_tape_torch"),
        ("chain", ["head=residue_linear"], "labels are of chains.*say head=sequence_tape2019"),
        ("residue", ["objective=causal_lm"], "classes of residues. Say objective=classes"),
        ("residue", ["task.trunk=melted"], "choose trained or frozen"),
        ("residue", ["monitor=val/q"], "monitor=val/q: there is no such number.*val/error"),
        ("residue", ["data.num_train=9"], "num_train=9: the training split has 8"),
    ],
)
def test_mistakes_are_told(site: str, overrides: list[str], message: str, tmp_path: Path) -> None:
    said = [word for word in training(site, 1) if word != "head.dropout=0"]
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", *said, *overrides)


def test_labels_of_another_kind_name_their_task(tmp_path: Path) -> None:
    data = made("residue")
    with pytest.raises(UserError, match=r"FineTune asks for targets.*say task=label_sites"):
        run(tmp_path / "a", *data, *MODEL, "head=linear", "task=finetune", "objective=regression")
    table = tmp_path / "table.csv"
    table.write_text("smiles,mass\nCCO,1\nCC,2\nCCC,3\nC,4\nCO,5\nCN,6\n")
    properties = ["data=molecule_table", f"data.source.path={table}", "data.source.target_columns=[mass]",
                  "data.source.split=random"]  # fmt: skip
    with pytest.raises(
        UserError, match=r"LabelSites asks for site.*say task=finetune or task=probe"
    ):
        run(
            tmp_path / "b",
            *properties,
            *MODEL,
            "head=linear",
            "task=label_sites",
            "objective=classes",
        )
    said = [f"task.input={table}", f"task.output={tmp_path / 'out.csv'}", "head=linear"]
    with pytest.raises(UserError, match=r"Predict asks for targets.*task=annotate to predict"):
        run(tmp_path / "c", *data, *MODEL, "task=predict", *said, f"init_from={_run_of(tmp_path)}")


def _run_of(folder: Path) -> Path:
    """A checkpoint that inheriting can read."""
    run(folder / "trained", *training("chain", 1))
    return folder / "trained"


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["trained", "frozen"])
def test_training_resumes_bit_for_bit(trunk: str, tmp_path: Path) -> None:
    whole, stopped = Program(tmp_path / "whole"), Program(tmp_path / "stopped")
    recipe = [*made("residue", 200, 60), "model=mlm_nano", "model.dropout=0.1", "head=residue_tape_torch",
              "task=label_sites", "objective=classes", "optimizer=adamw", "scheduler=run_cosine", "monitor=val/error",
              "data.budget=256", "trainer.max_epochs=3", "name=sites", f"task.trunk={trunk}", *SLOWED]  # fmt: skip
    whole(*recipe)
    killed_midway(stopped, recipe, signal.SIGKILL)
    assert "continuing from" in stopped(*recipe)
    assert_same_end(whole, stopped)


@pytest.mark.slow
def test_batches_and_their_order_do_not_matter(runs: Path, tmp_path: Path) -> None:
    """Padding neither: the same weights on one sequence at a time say what they say on all."""
    for site in HEADS:
        alone = ["task.validate_first=true", "optimizer.lr=1e-12", f"init_from={runs / site}"]
        arrays = []
        for budget in (1, 100000):
            folder = tmp_path / f"{site}_{budget}"
            run(
                folder,
                *training(site, 1),
                *alone,
                f"data.eval_budget={budget}",
                "task.trunk=frozen",
            )
            arrays.append(kept(folder))
        for name in ("first_names", "first_labels", "first_lengths"):
            assert (arrays[0][name] == arrays[1][name]).all()
        np.testing.assert_allclose(
            *(found["first_probabilities"].astype(float) for found in arrays), atol=2e-3
        )
