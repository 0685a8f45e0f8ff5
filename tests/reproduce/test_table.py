"""Tables are read strictly: a typo is refused with the accepted names."""

from pathlib import Path

import pytest

from lit_seqlm.errors import UserError
from lit_seqlm.reproduce.plan import folder, plan
from lit_seqlm.reproduce.table import load_paper, load_table
from tests.reproduce.synthetic import plain_table, write

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CONF = Path(__file__).parents[2] / "conf"
TABLES = sorted(
    (p.parent.name, p.stem) for p in EXPERIMENTS.glob("*/*.yaml") if p.name != "paper.yaml"
)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda t: t.update(headlines="x"), "no key 'headlines'. Did you mean headline?"),
        (
            lambda t: t["rows"][1].update(tolerence=2),
            "row branch: there is no key 'tolerence'. Did you mean tolerance?",
        ),
        (lambda t: t["rows"][1]["paper"].update(veryfied=True), "Did you mean verified?"),
        (lambda t: t["rows"][1]["paper"].pop("verified"), "the key 'verified' is missing"),
        (lambda t: t["rows"][1]["paper"].update(verified="u"), "must be true or false"),
        (
            lambda t: t["rows"][1]["paper"]["value"].update({"test/pl": 1.0}),
            "'test/pl' is not known. Did you mean test/ppl?",
        ),
        (lambda t: t["rows"][1]["effect"].update(against="bse"), "Did you mean base?"),
        (lambda t: t["rows"][1].update(init_from="branch"), "'branch' is not known"),
        (lambda t: t["rows"][1].update(scale="cpu"), "Accepted: paper, reduced."),
        (lambda t: t["rows"][1].update(seeds=3), "must be a list"),
        (lambda t: t["rows"][1].update(seeds=[1, 1]), "seeds must be different numbers"),
        (lambda t: t["rows"][1].update(overrides=["seed=3"]), "seed=3: use the keys"),
        (lambda t: t["rows"][0].update(tolerance=2), "needs a published test/ppl"),
        (lambda t: t["rows"][0].update(id="branch"), "stands there twice"),
        (
            lambda t: t["metrics"]["test/ppl"].update(direction="down"),
            "Accepted: higher, lower, none.",
        ),
        (lambda t: t.update(rows=[]), "at least one row"),
        (lambda t: t.update(name="x"), "no key 'name'"),
        (lambda t: t.update(absent=3), "absent must be text"),
    ],
)
def test_a_mistake_in_a_table_is_told_with_what_is_accepted(tmp_path, break_it, said):
    plain = plain_table()
    break_it(plain)
    with pytest.raises(UserError, match=r"small\.yaml") as caught:
        load_table(write(tmp_path, plain), "small")
    assert said in str(caught.value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    paper = write(tmp_path, plain_table())
    path = paper / "small.yaml"
    path.write_text(path.read_text() + "title: another\n")
    with pytest.raises(UserError, match="stands twice"):
        load_table(paper, "small")


def test_an_unknown_table_or_paper_is_told_with_those_there(tmp_path):
    paper = write(tmp_path, plain_table())
    with pytest.raises(UserError, match="Did you mean small"):
        load_table(paper, "smal")
    (paper / "paper.yaml").write_text("{title: A paper, reference: r, tables: [small]}")
    assert load_paper(paper).tables == ("small",)
    with pytest.raises(UserError, match="Did you mean paper2020"):
        load_paper(tmp_path / "paper202")


def test_a_branch_continues_the_only_seed_of_its_base(tmp_path):
    table = load_table(write(tmp_path, plain_table()), "small")
    jobs = plan(table, [table.row("branch")])
    assert [job.key for job in jobs] == [("base", 7), ("branch", 1), ("branch", 2)]
    assert jobs[1].needs == (("base", 7),)
    assert jobs[1].command[-1] == "init_from=outputs/small/seed_7" == f"init_from={jobs[0].folder}"
    assert jobs[1].folder != jobs[2].folder


def test_a_branch_of_several_seeds_continues_its_own(tmp_path):
    plain = plain_table()
    plain["rows"][0]["seeds"] = [1, 3]
    table = load_table(write(tmp_path, plain), "small")
    with pytest.raises(UserError, match="seed 2 continues row base"):
        plan(table, table.rows)


def test_rows_that_need_each_other_are_refused(tmp_path):
    plain = plain_table()
    plain["rows"][0]["needs"] = ["branch"]
    table = load_table(write(tmp_path, plain), "small")
    with pytest.raises(UserError, match="in a circle"):
        plan(table, table.rows)


def test_the_folder_is_the_one_that_the_run_chooses(tmp_path):
    table = load_table(write(tmp_path, plain_table()), "small")
    command = [
        "experiment=small",
        "seed=4",
        "name=other",
        "model.dropout=0.0",
        "paths.output_dir=elsewhere",
    ]
    assert str(folder(table.row("base"), 4, command, "outputs")).startswith("outputs/other/seed_4-")
    assert str(folder(table.row("base"), 4, command[:2], "outputs")) == "outputs/small/seed_4"


@pytest.mark.parametrize(("paper", "name"), TABLES)
def test_every_committed_table_loads_and_is_listed(paper, name):
    table = load_table(EXPERIMENTS / paper, name)
    assert name in load_paper(EXPERIMENTS / paper).tables
    for job in plan(table, table.rows):
        experiment = job.command[0].removeprefix("experiment=")
        assert (CONF / "experiment" / f"{experiment}.yaml").exists(), (
            f"row {job.row}: no experiment {experiment}"
        )
