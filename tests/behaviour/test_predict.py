"""From a fine-tuned run to a file of answers: each row keeps its place, whatever is wrong with it."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

import lit_seqlm
from lit_seqlm import engine
from lit_seqlm.config import CONF, register
from lit_seqlm.data.chemistry.composition import composition
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.conformal import conformal_quantile
from lit_seqlm.metrics.uncertainty import uncertainty_errors
from tests.conftest import ROOT

RUNS = Path  # a folder in which runs have folders of their own
SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "C1CCCCC1", "CCCl", "OCC(O)CO", "CC#N", "c1ccncc1",
          "CC(C)C", "CCOC", "NCCO", "CF", "C=CC", "O=C=O", "CCS", "CCCCCC", "Oc1ccccc1", "CC=O", "CBr"]  # fmt: skip
TRAINING = ["data=molecule_table", "data.source.target_columns=[mass,rings]", "data.source.unit=Da",
            "data.source.split=random", "data.source.valid_fraction=0.3", "model=linear_encoder_smoke",
            "objective=regression", "task=finetune", "task.baselines.names=[]", "optimizer=adamw",
            "monitor=val/loss", "trainer.max_epochs=1", "logger=none"]  # fmt: skip
FILE = ["CCO", "C1CC", "OCC", "", "CC[U]", "CC(C)(C)C(C)(C)C(C)(C)C", "c1ccccc1", "CC O"]
STATUSES = ["ok", "invalid_smiles", "ok", "empty", "unknown_tokens", "too_long", "ok", "invalid_smiles"]  # fmt: skip


def run(folder: Path, *overrides: str) -> Any:
    """A run of the engine in this process; its metrics and card."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", overrides=list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    engine.run(cfg)
    return json.loads((folder / "result.json").read_text())


def written(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RUNS]:
    """Two seeds of a fine-tuned run, one whose head knows its uncertainty, and one language model."""
    folder = tmp_path_factory.mktemp("runs")
    table = folder / "table.csv"
    with table.open("w") as file:
        file.write("smiles,mass,rings\n")
        for smiles in SMILES:
            mass = float(composition(smiles).sum())
            file.write(f"{smiles},{mass},{smiles.count('1') / 2}\n")
    training = [*TRAINING, f"data.source.path={table}", f"paths.cache_dir={folder}/cache"]
    for seed in (1, 2):
        run(folder / f"seed_{seed}", *training, f"seed={seed}", "head=mlp")
    run(folder / "gaussian", *training, "head=gaussian", "objective.loss=gaussian")
    yield folder
    GlobalHydra.instance().clear()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.smi"
    path.write_text("".join(f"{smiles}\n" for smiles in FILE if smiles != "CC O"))
    return path


def answered(runs: RUNS, tmp_path: Path, *overrides: str, seed: str = "seed_1") -> list[Any]:
    """What `task=predict` makes of FILE."""
    path = tmp_path / "rows.csv"
    path.write_text("smiles\n" + "".join(f'"{smiles}"\n' for smiles in FILE))
    output = tmp_path / "out.csv"
    run(tmp_path / "run", "task=predict", f"init_from={runs / seed}", f"task.input={path}",
        f"task.output={output}", "+data.tokenizer.unknown=error", "+data.max_len=20", "logger=none",
        *overrides)  # fmt: skip
    return written(output)


def test_every_row_has_its_line_in_its_place(runs: RUNS, tmp_path: Path) -> None:
    lines = answered(runs, tmp_path, "task.window=3", "task.token_budget=8")
    assert [line["row"] for line in lines] == [str(row) for row in range(1, 9)]
    assert [line["input"] for line in lines] == FILE
    assert [line["status"] for line in lines] == STATUSES
    assert list(lines[0])[4:] == ["mass [Da]", "rings [Da]"]
    for line in lines:
        assert np.isnan(float(line["mass [Da]"])) == (line["status"] != "ok")
        assert bool(line["reason"]) == (line["status"] not in ("ok", "empty"))
    same = [line["mass [Da]"] for line in lines if line["input"] in ("CCO", "OCC")]
    assert float(same[0]) == pytest.approx(float(same[1]), abs=1e-5), "the same molecule"
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_predictions_are_those_of_the_loaded_model_one_by_one(runs: RUNS, tmp_path: Path) -> None:
    loaded = lit_seqlm.load(runs / "seed_1")
    assert [target.name for target in loaded.targets] == ["mass", "rings"]
    for line in answered(runs, tmp_path):
        if line["status"] == "ok":
            ids = loaded.tokenizer.encode([line["input"] if "1" in line["input"] else "CCO"])[0]
            tokens = torch.tensor(ids.astype(np.int64))[None]
            with torch.no_grad():
                wanted = loaded.model.predict(tokens)[0].tolist()
            found = [float(line["mass [Da]"]), float(line["rings [Da]"])]
            assert found == pytest.approx(wanted, abs=1e-5)


def test_the_models_own_test_predictions_come_again(runs: RUNS, tmp_path: Path) -> None:
    """What fine-tuning wrote of its validation rows, from the file it was trained on."""
    output = tmp_path / "out.parquet"
    run(tmp_path / "run", "task=predict", f"init_from={runs / 'seed_1'}", "logger=none",
        f"task.input={runs / 'table.csv'}", f"task.output={output}")  # fmt: skip
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(output).to_pydict()
    kept = np.load(runs / "seed_1" / "predictions.npz")
    numbers = np.stack([found["mass [Da]"], found["rings [Da]"]], 1)
    # `valid_rows` counts within the split: matched by the labels, of which each is known.
    labels = np.array([[float(composition(s).sum()), s.count("1") / 2] for s in SMILES])
    for prediction, label in zip(kept["valid_predictions"], kept["valid_labels"], strict=True):
        candidates = numbers[(labels == label).all(1)]
        assert np.abs(candidates - prediction).max(1).min() < 1e-5


def test_an_ensemble_and_an_interval(runs: RUNS, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "both").mkdir()
    one = answered(runs, tmp_path / "one")
    two = answered(runs, tmp_path / "two", seed="seed_2")
    both = answered(
        runs, tmp_path / "both", f"task.ensemble=[{runs / 'seed_2'}]", "task.conformal=0.4"
    )
    kept = [np.load(runs / f"seed_{seed}" / "predictions.npz") for seed in (1, 2)]
    assert (kept[0]["valid_rows"] == kept[1]["valid_rows"]).all()
    mean = (kept[0]["valid_predictions"] + kept[1]["valid_predictions"]) / 2
    for place, name in enumerate(("mass", "rings")):
        error = np.abs(mean - kept[0]["valid_labels"])[:, place]
        radius = sorted(error)[int(np.ceil((len(error) + 1) * 0.6)) - 1]
        assert radius == conformal_quantile(error, 0.4)
        for a, b, found in zip(one, two, both, strict=True):
            if found["status"] == "ok":
                members = [float(line[f"{name} [Da]"]) for line in (a, b)]
                centre = float(found[f"{name} [Da]"])
                assert centre == pytest.approx(np.mean(members), abs=1e-6)
                assert float(found[f"{name} std [Da]"]) == pytest.approx(np.std(members), abs=1e-6)
                assert float(found[f"{name} low [Da]"]) == pytest.approx(centre - radius)
                assert float(found[f"{name} high [Da]"]) == pytest.approx(centre + radius)


def test_a_head_that_knows_its_uncertainty_says_it(runs: RUNS, tmp_path: Path) -> None:
    lines = answered(runs, tmp_path, seed="gaussian")
    loaded = lit_seqlm.load(runs / "gaussian")
    tokens = torch.tensor(loaded.tokenizer.encode(["c1ccccc1"])[0].astype(np.int64))[None]
    with torch.no_grad():
        sigma = loaded.model(tokens).variance_BK[0].double().sqrt() * loaded.model.scale.std_K
    (line,) = [line for line in lines if line["input"] == "c1ccccc1"]
    assert float(line["mass std [Da]"]) == pytest.approx(float(sigma[0]), rel=1e-5)


def test_intervals_are_as_wide_as_the_head_says(runs: RUNS, tmp_path: Path) -> None:
    lines = answered(runs, tmp_path, "task.conformal=0.4", seed="gaussian")
    kept = np.load(runs / "gaussian" / "predictions.npz")
    error = np.abs(kept["valid_predictions"] - kept["valid_labels"]) / kept["valid_sigmas"]
    readable = [line for line in lines if line["status"] == "ok"]
    assert len(readable) == STATUSES.count("ok")
    for place, name in enumerate(("mass", "rings")):
        radius = conformal_quantile(error[:, place], 0.4)
        for line in readable:
            sigma, centre = float(line[f"{name} std [Da]"]), float(line[f"{name} [Da]"])
            assert float(line[f"{name} high [Da]"]) - centre == pytest.approx(
                radius * sigma, rel=1e-5
            )
            assert centre - float(line[f"{name} low [Da]"]) == pytest.approx(
                radius * sigma, rel=1e-5
            )


def test_a_run_tells_how_far_its_uncertainty_can_be_believed(runs: RUNS) -> None:
    record = json.loads((runs / "gaussian" / "result.json").read_text())["metrics"]
    kept = np.load(runs / "gaussian" / "predictions.npz")
    of = [kept[f"test_{name}"][:, 0] for name in ("predictions", "sigmas", "labels")]
    for name, value in uncertainty_errors(*of).items():
        assert record[f"test/{name}/mass"] == pytest.approx(value, rel=1e-9)
    plain = json.loads((runs / "seed_1" / "result.json").read_text())["metrics"]
    assert "test/sigma/mass" in record
    assert not [name for name in plain if "sigma" in name]


def test_a_repeated_command_does_nothing_until_something_has_changed(
    runs: RUNS, rows: Path, tmp_path: Path
) -> None:
    output, folder = tmp_path / "out.csv.gz", tmp_path / "run"
    said = ["task=predict", f"init_from={runs / 'seed_1'}", f"task.input={rows}", "logger=none",
            f"task.output={output}"]  # fmt: skip
    first = run(folder, *said)
    content = output.read_bytes()
    assert run(folder, *said)["attempts"] == first["attempts"] == 1
    output.unlink()
    assert run(folder, *said)["attempts"] == 2
    assert output.read_bytes() == content, "the same bytes again"
    rows.write_text("CCO\n")
    with pytest.raises(UserError, match=r"out\.csv\.gz is there already.*task\.overwrite=true"):
        run(folder, *said)
    assert run(tmp_path / "again", *said, "task.overwrite=true")["metrics"]["rows/ok"] == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.input=none.csv"], r"task\.input=none\.csv: there is no such file"),
        (["task.column=smile"], r"table\.csv has no column 'smile'.*Did you mean smiles\?.*mass"),
        (["task.output=nowhere/out.csv"], "there is no folder nowhere"),
        (["task.output=out.xlsx"], r"must end in \.csv, \.csv\.gz, \.parquet"),
        (["task.conformal=1.5"], "a share between 0 and 1"),
        (["task.ensemble=[{runs}/seed_1]"], "counts twice"),
        (["task.ensemble=[{runs}/gaussian]"], "of another recipe than init_from=: head._target_"),
        (["task.window=0"], r"task\.window=0: it must be at least 1"),
    ],
)
def test_mistakes_are_told(runs: RUNS, tmp_path: Path, overrides: list[str], message: str) -> None:
    said = ["task=predict", f"init_from={runs / 'seed_1'}", f"task.input={runs / 'table.csv'}",
            "logger=none", f"task.output={tmp_path / 'out.csv'}"]  # fmt: skip
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", *said, *[word.format(runs=runs) for word in overrides])
    assert not (tmp_path / "out.csv").exists()


def test_an_input_without_rows_is_refused(runs: RUNS, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("smiles\n")
    with pytest.raises(UserError, match=r"none\.csv has no rows"):
        run(tmp_path / "run", "task=predict", f"init_from={runs / 'seed_1'}", "logger=none",
            f"task.input={tmp_path / 'none.csv'}", f"task.output={tmp_path / 'out.csv'}")  # fmt: skip


def test_runs_of_the_wrong_kind_are_refused(runs: RUNS, rows: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(runs / "seed_1" / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["config"]["head"] = None
    (tmp_path / "pretrained").mkdir()
    torch.save(checkpoint, tmp_path / "pretrained" / "best.ckpt")
    said = [f"init_from={tmp_path / 'pretrained'}", f"task.input={rows}", "logger=none"]
    with pytest.raises(UserError, match="has no head: task=predict goes on from a run"):
        run(tmp_path / "run", *said, "task=predict", f"task.output={tmp_path / 'out.csv'}")
    with pytest.raises(UserError, match="has no trunk"):
        run(
            tmp_path / "other",
            *said,
            "task=embed",
            "model=lstm",
            f"task.output={tmp_path / 'o.npy'}",
        )


def test_embeddings_do_not_depend_on_neighbours(runs: RUNS, tmp_path: Path) -> None:
    """Nor on windows and batches; `.npy` has the rows' states beside it."""
    few, many = tmp_path / "few.smi", tmp_path / "many.smi"
    few.write_text("CCO\nc1ccncc1\n")
    many.write_text("\n".join(["c1ccncc1", *SMILES, "C1CC", "CCO"]) + "\n")
    said = ["task=embed", f"init_from={runs / 'seed_2'}", "logger=none"]
    run(tmp_path / "a", *said, f"task.input={few}", f"task.output={tmp_path / 'few.npy'}")
    run(tmp_path / "b", *said, f"task.input={many}", f"task.output={tmp_path / 'many.npz'}",
        "task.window=5", "task.token_budget=20")  # fmt: skip
    first, second = np.load(tmp_path / "few.npy"), np.load(tmp_path / "many.npz")["embedding"]
    assert first.dtype == second.dtype == np.float32
    assert first.shape == (2, 32)
    assert len(second) == len(SMILES) + 3
    np.testing.assert_allclose(second[[-1, 0]], first, atol=1e-5)
    lines = written(tmp_path / "many.rows.csv")
    bad = [row for row, line in enumerate(lines) if line["status"] != "ok"]
    assert bad == np.flatnonzero(np.isnan(second).all(1)).tolist() == [len(SMILES) + 1]
    loaded = lit_seqlm.load(runs / "seed_2")
    tokens = torch.tensor(loaded.tokenizer.encode(["CCO"])[0].astype(np.int64))[None]
    with torch.no_grad():
        alone = loaded.model.trunk(tokens).mean(1)[0].numpy()
    np.testing.assert_allclose(first[0], alone, atol=1e-5)


def test_features_drawn_anew_are_warned_of(
    runs: RUNS, rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = ["task=embed", f"init_from={runs / 'seed_1'}", f"task.input={rows}", "logger=none"]
    with pytest.raises(UserError, match=r"task\.num_draws=2: 1, or more with"):
        run(tmp_path / "a", *said, "task.num_draws=2", f"task.output={tmp_path / 'a.npy'}")
    redrawn = [*said, "+model.attention.omega_policy=redraw_always", "task.num_draws=2"]
    run(tmp_path / "b", *redrawn, f"task.output={tmp_path / 'b.npy'}")
    assert "an answer depends on the rows around it" in caplog.text


@pytest.mark.slow
def test_standard_input_from_the_command_line(runs: RUNS, tmp_path: Path) -> None:
    """Twice: nobody knows whether it is the same again, so it is read again."""
    output = tmp_path / "out.csv"
    command = [sys.executable, str(ROOT / "run.py"), "task=predict", f"init_from={runs / 'seed_1'}",
               "task.input=-", f"task.output={output}"]  # fmt: skip
    environment = os.environ | {"LIT_SEQLM_OUTPUTS": str(tmp_path / "outputs")}
    for overwrite, status in (([], 0), ([], 2), (["task.overwrite=true"], 0)):
        done = subprocess.run([*command, *overwrite], input="smiles\nCCO\nC1CC\n", cwd=ROOT, text=True,
                              env=environment, capture_output=True, check=False)  # fmt: skip
        assert done.returncode == status, done.stderr
    assert [line["status"] for line in written(output)] == ["ok", "invalid_smiles"]
    assert "2 rows, 1 ok, 1 invalid_smiles (row 2: invalid_smiles: unclosed ring)" in done.stdout
