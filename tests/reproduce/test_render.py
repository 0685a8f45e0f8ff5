"""What a reader sees: rounding, marks, statuses. A stale README or a bad record is found."""

import io
import json

import pytest
from rich.console import Console
from rich.measure import Measurement

from lit_seqlm.errors import UserError
from lit_seqlm.reproduce.cells import percent
from lit_seqlm.reproduce.checks import check_paper, check_table
from lit_seqlm.reproduce.plan import plan
from lit_seqlm.reproduce.records import MACHINE_PATH, committed_path, keep, load_records
from lit_seqlm.reproduce.render import markdown, terminal
from lit_seqlm.reproduce.table import load_paper, load_table
from lit_seqlm.reproduce.view import view
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
    assert "| row | paper | effect paper | status | scale |" in text, "empty columns are left out"
    assert "| branch | 90.00 (unverified) [1] | -2.70 % | not run | reduced |" in text
    assert "| later \\| not yet | - | - | not implemented | reduced |" in text
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


WIDE = {
    "title": "A grid",
    "headline": "d",
    "absent": "text not at hand",
    "metrics": {
        "a": {"label": "static", "direction": "lower", "digits": 1},
        "b": {"label": "speed", "direction": "higher", "unit": "tokens/s", "digits": 0},
        "c": {"label": "never given", "direction": "lower"},
        "d": {"label": "words", "direction": "none", "digits": 0},
    },
    "rows": [
        {
            "id": "published",
            "label": "published",
            "paper": {"value": {"a": 99.95, "d": 7}, "where": "table 1", "verified": False},
        },
        {"id": "ours", "label": "ours", "experiment": "small", "seeds": [1, 2], "scale": "reduced"},
    ],
}


def test_more_than_two_metrics_have_a_column_each_where_something_stands(tmp_path):
    """An oracle by hand: what a reader would write."""
    table = load_table(write(tmp_path, WIDE), "small")
    runs = {seed: {"status": "done", "metrics": {"b": 10.0 * seed}} for seed in (1, 2)}
    shown = view(table, {"ours": runs})
    titles = ["row", "static, paper", "words, paper", "source", "speed in tokens/s, reduced scale"]
    assert shown.columns == [*titles, "n", "status", "scale", "commit"]
    assert shown.lines == [
        ["published", "100.0", "7", "[1] (unverified)", "-", "-", "text not at hand", "paper", "-"],
        ["ours", "-", "-", "-", "15 ± 7", "2", "done", "reduced", "?"],
    ]
    ways = ["Lower is better: static, never given.", "Higher is better: speed."]
    assert shown.notes == [*ways, "Neither way is better: words.", "Sources: [1] table 1."]
    assert view(table, {}).columns == [*titles[:4], "status", "scale"]


def test_a_wide_table_fits_a_terminal_of_100_columns(tmp_path):
    plain = {
        **WIDE,
        "metrics": {
            name: {"label": f"+ unbounded {name}", "direction": "none", "digits": 1}
            for name in "abcdef"
        },
        "rows": [{**WIDE["rows"][1], "seeds": [1]}],
    }
    table = load_table(write(tmp_path, plain), "small")
    runs = {1: {"status": "done", "metrics": dict.fromkeys("abcdef", 1234.56)}}
    for width in (100, 160):
        output = io.StringIO()
        Console(file=output, width=width).print(terminal(table, {"ours": runs}))
        lines = output.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        (ours,) = [line for line in lines if line.lstrip().startswith("ours")]
        assert ours.split() == ["ours", *["1234.6"] * 6, "1", "done"]


def test_a_metric_that_has_no_better_way_is_only_named(tmp_path):
    plain = plain_table()
    plain["metrics"]["test/ppl"] = {"label": "words", "direction": "none", "unit": "thousands"}
    table = load_table(write(tmp_path, plain), "small")
    assert view(table, {}).notes[0] == "Numbers: words in thousands."


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
