"""Classes of every row of a file, from runs of each kind of site."""

# L = residues

import csv
import json
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
from tests.behaviour.test_predict import run
from tests.behaviour.test_sites import HEADS, MODEL, kept, made, training
from tests.made_sites import CLASSES, FoundClasses, MadeSites

BAD = "ACD3"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of each kind of site, and a file of what it was tested on."""
    folder = tmp_path_factory.mktemp("runs")
    for site in HEADS:
        run(folder / site, *training(site, 2))
        table = MadeSites("", site, 8, 6).table("first", None)
        lines = [f"{name} {seq}\n" for name, seq in zip(table.names, table.sequences, strict=True)]
        (folder / f"{site}.txt").write_text("".join([lines[0], f"bad {BAD}\n", *lines[1:]]))
    yield folder
    GlobalHydra.instance().clear()


def annotated(runs: Path, site: str, output: Path, *overrides: str, task: str = "annotate") -> Any:
    """The result of a run on the file of its first test."""
    return run(output.parent / f"run_{output.name}", *made(site), f"task={task}", f"init_from={runs / site}",
               f"task.input={runs / f'{site}.txt'}", f"task.output={output}", "logger=none", *overrides)  # fmt: skip


def answers(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_residues_have_strings_of_classes_and_confidences(runs: Path, tmp_path: Path) -> None:
    """Those of the run's own test, though batches and windows are others."""
    result = annotated(runs, "residue", tmp_path / "a.csv", "task.window=3", "task.token_budget=40")
    assert result["metrics"]["rows/ok"] == 8
    lines, arrays = answers(tmp_path / "a.csv"), kept(runs / "residue")
    assert [line["name"] for line in lines] == [
        "first_0",
        "bad",
        *[f"first_{i}" for i in range(1, 8)],
    ]
    assert lines[1]["status"] == "illegal"
    assert lines[1]["classes"] == lines[1]["confidences"] == ""
    assert lines[1]["mean_confidence"] == "nan"
    good = [line for line in lines if line["status"] == "ok"]
    for line in good:
        assert len(line["classes"]) == len(line["confidences"]) == len(line["input"])
    probability = arrays["first_probabilities"].astype(np.float64)
    wanted = "".join("HEC"[one] for one in probability.argmax(1))
    assert "".join(line["classes"] for line in good) == wanted
    digits = np.array([int(digit) for line in good for digit in line["confidences"]])
    assert (np.abs(digits - np.floor(10 * probability.max(1)).clip(max=9)) <= 1).all()
    ends = np.cumsum(arrays["first_lengths"])[:-1]
    means = [part.max(1).mean() for part in np.split(probability, ends)]
    found = [float(line["mean_confidence"]) for line in good]
    np.testing.assert_allclose(found, means, atol=1e-3)


@pytest.mark.parametrize("site", HEADS)
def test_arrays_are_the_probabilities_of_each_protein(
    runs: Path, site: str, tmp_path: Path
) -> None:
    annotated(runs, site, tmp_path / "a.npz")
    arrays = kept(runs / site)
    with np.load(tmp_path / "a.npz") as file:
        found = dict(file)
    assert list(found) == [f"first_{place}" for place in range(8)]
    flat = [
        array[np.triu_indices(len(array), 1)] if site == "pair" else array.reshape(-1, len(CLASSES[site]))
        for array in found.values()
    ]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(flat), arrays["first_probabilities"], atol=2e-3)
    lines = answers(tmp_path / "a.rows.csv")
    assert [line["status"] for line in lines] == ["ok", "illegal", *["ok"] * 7]
    if site == "pair":
        expected = [float(line["expected_contacts"]) for line in lines if line["status"] == "ok"]
        np.testing.assert_allclose(expected, [one.sum() for one in flat], rtol=1e-4)


def test_expected_contacts_are_those_of_pairs_that_were_learnt(runs: Path, tmp_path: Path) -> None:
    """Six apart or more: what a model says of nearer pairs means nothing, and it may be much."""
    source = "+data.source={_target_:tests.made_sites.FarContacts,data_dir:'',number:8,spread:6}"
    run(tmp_path / "run", *made("pair")[:2], source, "task=annotate", f"init_from={runs / 'pair'}", "logger=none",
        f"task.input={runs / 'pair.txt'}", f"task.output={tmp_path / 'a.npz'}")  # fmt: skip
    with np.load(tmp_path / "a.npz") as file:
        maps = list(file.values())
    found = [
        float(line["expected_contacts"])
        for line in answers(tmp_path / "a.rows.csv")
        if line["status"] == "ok"
    ]
    wanted = [
        sum(map_LL[i, j] for i in range(len(map_LL)) for j in range(i + 6, len(map_LL)))
        for map_LL in maps
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert all(one < np.triu(map_LL, 1).sum() for one, map_LL in zip(found, maps, strict=True))


def test_no_training_data_are_read_for_the_classes(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the checkpoint; of a run from before they were, the data say them."""
    monkeypatch.setattr("lit_seqlm.config.refuse_foreign", lambda node, where: None)
    source = "+data.source={_target_:tests.made_sites.FoundClasses,data_dir:'',number:8,spread:6}"
    said = [word for word in training("chain", 1) if not word.startswith("+data.source")]
    run(tmp_path / "run", *said, source)
    asked = [*made("chain")[:2], source, "task=annotate", f"init_from={tmp_path / 'run'}", "logger=none",
             f"task.input={runs / 'chain.txt'}"]  # fmt: skip
    FoundClasses.reads = 0
    run(tmp_path / "new", *asked, f"task.output={tmp_path / 'new.csv'}")
    assert lit_seqlm.load(tmp_path / "run").classes == CLASSES["chain"]
    assert FoundClasses.reads == 0
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    assert checkpoint.pop("classes") == list(CLASSES["chain"])
    torch.save(checkpoint, best)
    run(tmp_path / "old", *asked, f"task.output={tmp_path / 'old.csv'}")
    assert lit_seqlm.load(tmp_path / "run").classes == CLASSES["chain"]
    assert FoundClasses.reads > 0
    assert answers(tmp_path / "old.csv") == answers(tmp_path / "new.csv")


def test_a_chain_has_its_likeliest_classes(runs: Path, tmp_path: Path) -> None:
    annotated(runs, "chain", tmp_path / "a.csv")
    lines = [line for line in answers(tmp_path / "a.csv") if line["status"] == "ok"]
    for line, probability in zip(lines, kept(runs / "chain")["first_probabilities"], strict=True):
        order = np.argsort(-probability.astype(np.float64), kind="stable")
        assert line["class_1"] == CLASSES["chain"][order[0]]
        told = [float(line[f"probability_{place}"]) for place in range(1, 5)]
        np.testing.assert_allclose(told, probability[order], atol=2e-3)
        assert sorted(line[f"class_{place}"] for place in range(1, 5)) == list("abcd")


def test_parquet_has_texts_and_numbers(runs: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    annotated(runs, "residue", tmp_path / "a.csv")
    annotated(runs, "residue", tmp_path / "a.parquet")
    found, lines = (
        parquet.read_table(tmp_path / "a.parquet").to_pylist(),
        answers(tmp_path / "a.csv"),
    )
    for row, line in zip(found, lines, strict=True):
        assert (row["classes"] or "") == line["classes"]
        assert str(row["mean_confidence"]) == line["mean_confidence"]


def test_states_of_each_residue(runs: Path, tmp_path: Path) -> None:
    """Their mean is what `mean_inner` or, for a tokenizer that only begins, the rest would be."""
    annotated(runs, "residue", tmp_path / "e.npz", "task.per_residue=true", task="embed")
    with np.load(tmp_path / "e.npz") as file:
        found = dict(file)
    lengths = kept(runs / "residue")["first_lengths"].tolist()
    assert [array.shape for array in found.values()] == [(length, 32) for length in lengths]
    with pytest.raises(UserError, match=r"with task\.per_residue say NAME\.npz"):
        annotated(runs, "residue", tmp_path / "e.csv", "task.per_residue=true", task="embed")


def test_a_map_is_no_row_of_a_table(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a map is no row of a table.*NAME\.npz"):
        annotated(runs, "pair", tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
    with pytest.raises(UserError, match=r"must end in .*\.npz"):
        annotated(runs, "pair", tmp_path / "a.npy")


def test_equal_names_have_arrays_of_their_own(runs: Path, tmp_path: Path) -> None:
    (runs / "twice.txt").write_text("one ACDEFGH\none ACD\n ACDE\n")
    annotated(runs, "residue", tmp_path / "a.npz", f"task.input={runs / 'twice.txt'}")
    with np.load(tmp_path / "a.npz") as file:
        assert {name: len(array) for name, array in file.items()} == {
            "one": 7,
            "one_2": 3,
            "row_3": 4,
        }


def test_a_run_of_another_kind_names_the_task_for_it(runs: Path, tmp_path: Path) -> None:
    said = [f"init_from={runs / 'residue'}", f"task.input={runs / 'residue.txt'}", "logger=none"]
    with pytest.raises(UserError, match=r"Predict asks for targets.*task=annotate to predict"):
        run(
            tmp_path / "a",
            *made("residue"),
            "task=predict",
            *said,
            f"task.output={tmp_path / 'o.csv'}",
        )
    table = tmp_path / "table.csv"
    table.write_text("smiles,mass\nCCO,1\nCC,2\n")
    properties = [
        "data=molecule_table",
        f"data.source.path={table}",
        "data.source.target_columns=[mass]",
    ]
    with pytest.raises(UserError, match=r"Annotate asks for site.*task=predict to predict"):
        run(
            tmp_path / "b", *properties, "task=annotate", *said, f"task.output={tmp_path / 'o.csv'}"
        )


@pytest.mark.parametrize("features", ["attention", "product"])
def test_contacts_are_read_from_a_frozen_model(runs: Path, features: str, tmp_path: Path) -> None:
    """By a regression whose probabilities are in `predictions.npz`; it is beside the baseline."""
    result = run(tmp_path / "run", *made("pair"), *MODEL, "task=probe_contacts", f"init_from={runs / 'pair'}",
                 f"task.features={features}", "task.num_proteins=5", "task.least_apart=2", "task.strength=0.01",
                 "logger=none")  # fmt: skip
    metrics, arrays = result["metrics"], kept(tmp_path / "run")
    assert metrics["probe/features"] == (2 if features == "attention" else 32)
    assert len(result["card"]["fitted_to"]) == 5
    assert result["card"]["definitions"] == DEFINITIONS
    assert "baseline/separation/first/p_at_l5_esm_short" in metrics
    label, probability = arrays["first_labels"], arrays["first_probabilities"]
    assert len(label) == len(probability)
    if features == "product":  # linear in what decides whether a made pair touches
        assert probability[label == 1].mean() > probability[label == 0].mean() + 0.1
    with np.load(tmp_path / "run" / "regression.npz") as found:
        assert len(found["weight"]) == metrics["probe/features"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.num_proteins=9"], "the training split has 8"),
        (["task.features=colour"], "choose attention or product"),
        (["task.strength=0"], "above 0"),
    ],
)
def test_mistakes_of_a_probe_are_told(
    runs: Path, overrides: list[str], message: str, tmp_path: Path
) -> None:
    said = [*made("pair"), *MODEL, "task=probe_contacts", f"init_from={runs / 'pair'}"]
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", *said, "logger=none", *overrides)


def test_a_probe_of_contacts_needs_contacts_and_weights(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels are of residues.*data=contacts_pdb"):
        run(tmp_path / "a", *made("residue"), "task=probe_contacts", f"init_from={runs / 'pair'}")
    with pytest.raises(UserError, match="needs trained weights"):
        run(tmp_path / "b", *made("pair"), *MODEL, "task=probe_contacts")


def test_a_result_is_one_table_for_json(runs: Path) -> None:
    """Numbers of every test are plain and finite."""
    metrics = json.loads((runs / "residue" / "result.json").read_text())["metrics"]
    assert all(isinstance(value, float) for value in metrics.values())
