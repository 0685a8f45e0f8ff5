"""What a reader sees: rounding, marks, statuses. A stale README or a bad record is found."""

import io
import json

import pytest
from rich.console import Console
from rich.measure import Measurement

from lit_seqlm.errors import UserError
from lit_seqlm.reproduce.checks import check_paper, check_table
from lit_seqlm.reproduce.plan import plan
from lit_seqlm.reproduce.records import MACHINE_PATH, committed_path, keep, load_records
from lit_seqlm.reproduce.render import markdown, percent, terminal, view
from lit_seqlm.reproduce.table import load_paper, load_table
from tests.reproduce.synthetic import BASE, BRANCH, plain_table, records, write

COMMAND = "render it"


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """A paper with one table, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIT_SEQLM_OUTPUTS", raising=False)
    plain = plain_table()
    plain["rows"][0]["seeds"] = [1, 2, 3]
    plain["rows"][1].update(seeds=[1, 2, 3], scale="reduced", tolerance=25)
    plain["rows"].append({"id": "later", "label": "later | not yet", "scale": "reduced"})
    folder = write(tmp_path, plain)
    (folder / "paper.yaml").write_text(
        "{title: A paper, reference: Somebody 2020, tables: [small]}"
    )
    return folder


def run_all(table, **changes):
    """Write the run folders that a launch would leave."""
    values = {"base": BASE, "branch": BRANCH}
    for job in plan(table, table.rows):
        job.folder.mkdir(parents=True)
        record = {
            "name": "small",
            "seed": job.seed,
            "overrides": list(job.command),
            "status": "done",
            "metrics": {"test/ppl": values[job.row][job.seed]},
            "commit": "0123456789ab",
            "dirty": False,
            "scale": table.row(job.row).scale,
            "origin": {"name": "small", "seed": 1} if job.needs else None,
            **changes,
        }
        (job.folder / "result.json").write_text(json.dumps(record))
    return plan(table, table.rows)


def test_a_table_without_runs_says_so(paper):
    table = load_table(paper, "small")
    text = markdown(load_paper(paper), [(table, load_records(table))], COMMAND)
    assert (
        "| branch | 90.00 (unverified) [1] | - | - | - | -2.70 % | not run | reduced | - |" in text
    )
    assert "| later \\| not yet | - | - | - | - | - | not implemented | reduced | - |" in text
    assert "[1] table 1" in text


def test_measured_numbers_stand_in_the_column_of_their_scale(paper):
    table = load_table(paper, "small")
    shown = view(table, {"base": records(BASE), "branch": records(BRANCH)})
    base, branch, _ = [dict(zip(shown.columns, line, strict=True)) for line in shown.lines]
    assert base["measured mean ± sd (n)"] == "110.50 ± 1.28 (3)"
    assert base["measured at reduced scale, mean ± sd (n)"] == "-"
    assert branch["measured mean ± sd (n)"] == "-"
    assert branch["measured at reduced scale, mean ± sd (n)"] == "108.47 ± 0.72 (3)"
    assert branch["effect measured"] == "-1.84 ± 0.58 % (3)"
    assert branch["commit"] == "0123456"


@pytest.mark.parametrize(("value", "text"), [(-2.7, "-2.70"), (0.004, "+0.00"), (12.34, "+12.3")])
def test_percentages_have_a_sign(value, text):
    assert percent(value) == text


def test_the_terminal_shows_the_same_cells_in_100_columns(paper):
    table = load_table(paper, "small")
    output = io.StringIO()
    console = Console(file=output, width=100)
    grid = terminal(table, {"base": records(BASE), "branch": records(BRANCH)})
    assert Measurement.get(console, console.options, grid).minimum <= 100
    console.print(grid)
    for text in ("108.47 ± 0.72", "-1.84 ± 0.58", "(unverified)", "[1]", "status", "0123456"):
        assert text in output.getvalue()


def test_check_passes_when_all_is_kept_and_rendered(paper):
    table = load_table(paper, "small")
    assert all(keep(table, job) for job in run_all(table))
    assert not any(keep(table, job) for job in plan(table, table.rows))  # nothing new
    stale = f"{paper.name}: {paper.name}/README.md is not what its tables say now. Run: {COMMAND}"
    assert check_paper(paper, COMMAND) == [stale]
    table = load_table(paper, "small")
    (paper / "README.md").write_text(
        markdown(load_paper(paper), [(table, load_records(table))], COMMAND)
    )
    assert check_paper(paper, COMMAND) == []


def test_check_finds_a_number_out_of_tolerance_and_a_file_of_no_row(paper):
    table = load_table(paper, "small")
    for job in run_all(table, metrics={"test/ppl": 120.0}):
        keep(table, job)
    (committed_path(table, "base", 1).parent / "bse-seed_1.json").write_text("{}")
    problems = check_table(table, load_records(table))
    assert problems[0] == "small/bse-seed_1.json: no row and seed of the table asks for it"
    assert problems[1] == "small: row branch: measured test ppl 120.00 is more than 25 % from 90.00"
    assert "out of tolerance" in str(view(table, load_records(table)).lines[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "unknown"}, "no commit"),
        ({"seed": 5}, "of another run"),
        ({"overrides": ["experiment=small", "model.dropout=0.9"]}, "of another run"),
        ({"scale": "smoke"}, "its scale is 'smoke'"),
        ({"init_from": "/data/somebody/outputs/run"}, "a path of one machine"),
        ({"error": "cannot read '~/corpus'"}, "a path of one machine"),
    ],
)
def test_a_record_that_cannot_stand_behind_a_number_is_not_kept(paper, changes, said):
    table = load_table(paper, "small")
    job = run_all(table, **changes)[0]
    with pytest.raises(UserError, match=said):
        keep(table, job)


def test_an_unfinished_run_is_not_kept(paper):
    table = load_table(paper, "small")
    assert not any(keep(table, job) for job in run_all(table, status="interrupted"))


def test_a_kept_record_without_status_is_a_fault_not_a_number(paper):
    table = load_table(paper, "small")
    path = committed_path(table, "base", 1)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"metrics": {"test/ppl": 1.0}, "commit": "0123456789ab"}))
    assert check_table(table, load_records(table)) == [
        f"small/base-seed_1.json: it has no {key}" for key in ("status", "overrides", "scale")
    ]
    assert view(table, load_records(table)).lines[0][-3] == "not run"


@pytest.mark.parametrize(
    "text", ["/work/x/y", "a=/home/me/run", "see (/tmp/a/b)", "C:\\data", "~/data"]
)
def test_machine_paths_are_recognised(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["outputs/a/seed_1", "cpu: A/B, 1 threads", "init_from=outputs/x", "Intel(R) @ 2.9 GHz"]
)
def test_other_slashes_are_not(text):
    assert not MACHINE_PATH.search(text)
