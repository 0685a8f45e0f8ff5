"""A table by metric, numbers of other numbers' runs, expected numbers: against what a reader would write by hand."""

import io
import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from lit_seqlm.config import CONF, register
from lit_seqlm.errors import UserError
from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.by_metric import laid_out
from lit_seqlm.reproduce.cells import paper_number
from lit_seqlm.reproduce.checks import check_table
from lit_seqlm.reproduce.plan import plan
from lit_seqlm.reproduce.recipe import hash_of
from lit_seqlm.reproduce.records import collect, committed_path, load_records
from lit_seqlm.reproduce.render import MOST_COLUMNS, terminal
from lit_seqlm.reproduce.table import load_table

TABLE = """
title: By metric
layout: metrics
published_digits: own
headline: test/a
metrics:
  test/a: {label: alpha, direction: lower, unit: a0³, digits: 3}
  test/b: {label: gap, direction: lower, digits: 4}
  test/c: {label: never given, direction: lower}
rows:
  - {id: base, label: base, experiment: ptb_lstm_cpu, scale: reduced}
  - id: published
    label: Somebody
    paper: {value: {test/a: 0.270, test/b: 1.40}, sd: {test/b: 0.10}, unverified: [test/b],
            where: table 1, verified: true}
  - {id: ours, label: ours, experiment: ptb_lstm_cpu, overrides: [model.dropout=0.1], needs: [base],
     seeds: [1, 2], scale: reduced}
  - id: least_squares
    label: least squares
    of: ours
    prefix: baseline/ols/
    expected: {value: {test/a: 2.0, test/b: 0.010}, where: by hand}
    tolerance: 1
"""
COLUMNS = [
    "measure",
    "Somebody, paper [1]",
    "ours, reduced scale",
    "least squares, expected [2]",
    "least squares, measured",
]


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_SEQLM_OUTPUTS", str(tmp_path / "elsewhere"))
    (tmp_path / "paper2020").mkdir()
    (tmp_path / "paper2020" / "small.yaml").write_text(TABLE)
    return load_table(tmp_path / "paper2020", "small")


def run_all(table, root, gap=0.0102):
    """The run folders that this machine has, under a root of its own, and told so in the records."""
    for job in plan(table, table.rows, str(root)):
        numbers = {"val/ppl": 1.0}
        if job.row == "ours":
            other = {"baseline/ols/a": 2.01, "baseline/ols/b": gap, "baseline/olsx/a": 9.0}
            numbers = {"test/a": 0.3 + job.seed / 10, **other}
        record = {
            "name": "ptb_lstm_cpu",
            "seed": job.seed,
            "overrides": list(job.command),
            "status": "done",
            "metrics": numbers,
            "commit": "0123456789ab",
            "scale": "reduced",
            "init_from": f"{root}/base/seed_1" if job.row == "ours" else None,
            "origin": {"name": "base", "seed": 1} if job.row == "ours" else None,
        }
        job.folder.mkdir(parents=True)
        (job.folder / "result.json").write_text(json.dumps(record))


@pytest.fixture
def collected(table, tmp_path, monkeypatch):
    """Kept from another output root than the usual one, without a run."""
    run_all(table, tmp_path / "elsewhere")
    monkeypatch.setattr("lit_seqlm.reproduce.records.is_stale", lambda job: False)
    assert collect(table) == []
    return table


def test_a_line_for_each_metric_and_a_column_for_each_model(collected):
    shown = laid_out(collected, load_records(collected))
    assert shown.columns == COLUMNS
    assert shown.lines == [
        ["alpha in a0³", "0.270", "0.450 ± 0.071", "2.0", "2.010 ± 0.000"],
        ["gap", "1.40 ± 0.10 (unverified)", "-", "0.010", "0.0102 ± 0.0000"],
        ["runs", "-", "2", "-", "2"],
        ["status", "not implemented", "done", "-", "done"],
        ["commit", "-", "0123456", "-", "0123456"],
    ]
    assert "Others go on from “base”: done, commit 0123456." in shown.notes


def test_a_table_by_metric_fits_its_columns_and_says_everything(collected):
    output = io.StringIO()
    Console(file=output, width=100).print(terminal(collected, load_records(collected)))
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    notes = laid_out(collected, load_records(collected)).notes
    assert lines[-len(notes) :] == notes
    assert all(len(line) <= MOST_COLUMNS for line in lines[: -len(notes)])
    numbers = [line.split("a0³")[1].split() for line in lines if "alpha in a0³" in line]
    assert [word for found in numbers for word in found] == [
        "0.270", "0.450", "±", "0.071", "2.0", "2.010", "±", "0.000",
    ]  # fmt: skip


def test_records_tell_the_common_place_of_runs_wherever_this_machine_has_them(collected, tmp_path):
    text = committed_path(collected, "ours", 1).read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["init_from"] == "outputs/base/seed_1"
    assert check_table(collected, load_records(collected)) == []


def test_runs_of_another_recipe_are_not_collected(table, tmp_path):
    run_all(table, tmp_path / "elsewhere")  # without the hash of today's recipe
    assert [problem.partition(":")[0] for problem in collect(table)] == [
        "base, seed 1", "ours, seed 1", "ours, seed 2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    # One percent of 0.010, and half a unit of its last digit: 0.0106 is the limit.
    ("gap", "within"), [(0.0105, True), (0.0107, False), (0.0093, False)]
)  # fmt: skip
def test_every_expected_number_has_a_tolerance(table, tmp_path, gap, within, monkeypatch):
    run_all(table, tmp_path / "elsewhere", gap)
    monkeypatch.setattr("lit_seqlm.reproduce.records.is_stale", lambda job: False)
    collect(table)
    records = load_records(table)
    row = table.row("least_squares")
    assert aggregate.within_tolerance(table, row, records["least_squares"]) is within
    said = [f"small: row least_squares: measured gap {gap:.4f} is more than 1 % from 0.0100"]
    assert check_table(table, records) == ([] if within else said)


def test_digits_are_the_metrics_unless_the_table_says_otherwise(table, tmp_path):
    path = tmp_path / "paper2020" / "small.yaml"
    path.write_text(TABLE.replace("published_digits: own\n", ""))
    other = load_table(path.parent, "small")
    told = [paper_number(each, each.row("published"), "test/a") for each in (table, other)]
    assert told == ["0.270", "0.270"]
    told = [paper_number(each, each.row("published"), "test/b") for each in (table, other)]
    assert told == ["1.40 ± 0.10 (unverified)", "1.4000 ± 0.1000 (unverified)"]


def test_a_row_of_other_runs_plans_those(table):
    jobs = plan(table, [table.row("least_squares")])
    assert [job.key for job in jobs] == [("base", 1), ("ours", 1), ("ours", 2)]
    assert table.row("least_squares").seeds == (1, 2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("of: ours", "of: our", "Did you mean ours?"),
        ("of: ours", "of: published", "row published has no experiment"),
        ("prefix: baseline/ols/", "prefix: baseline/ols", "ends with a slash"),
        ("of: ours", "of: ours\n    experiment: ptb_lstm_cpu", "leave out experiment"),
        ("layout: metrics", "layout: metric", "Did you mean metrics?"),
        ("digits: own", "digits: mine", "'mine' is not known"),
        ("unverified: [test/b]", "unverified: [test/c]", "'test/c' is not known"),
        ("expected: {value: {test/a: 2.0,", "expected: {value: {test/x: 2.0,", "'test/x' is not"),
    ],
)
def test_a_mistake_is_told(table, tmp_path, old, new, said):
    path = tmp_path / "paper2020" / "small.yaml"
    assert old in TABLE
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(UserError, match=r"small\.yaml") as caught:
        load_table(path.parent, "small")
    assert said in str(caught.value)


def test_what_a_task_takes_from_its_origin_is_part_of_todays_recipe(tmp_path):
    """Against the same model said on the command line: a probe reads the model that was trained, not the default."""
    model = ["model=linear_encoder_smoke", "model.dropout=0.0"]
    config = composed(*model, "data=qm8", "objective=masked_lm")
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "config": config}, tmp_path / "checkpoints" / "best.ckpt")
    probe = ["experiment=qm8_molformer_probe", f"init_from={tmp_path}"]
    assert hash_of(probe) == hash_of(["experiment=qm8_molformer_probe", "init_from=null", *model])
    other = [model[0], "model.dropout=0.3"]
    assert hash_of(probe) != hash_of(["experiment=qm8_molformer_probe", "init_from=null", *other])
    assert hash_of([*probe[:1], f"init_from={tmp_path}/gone"]) is None


def composed(*words):
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        chosen = compose("config", overrides=[*words, "paths.run_dir=."])
    return OmegaConf.to_container(chosen, resolve=True, enum_to_str=True)
