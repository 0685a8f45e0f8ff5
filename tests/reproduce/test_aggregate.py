"""Means, spreads and paired effects against NumPy; statuses."""

import numpy as np
import pytest

from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.table import load_table
from tests.reproduce.synthetic import BASE, BRANCH, plain_table, record, records, write


def test_mean_and_deviation_are_those_of_numpy():
    found = aggregate.measured(records(BASE), "test/ppl")
    assert found.mean == pytest.approx(np.mean(list(BASE.values())), rel=1e-14)
    assert found.sd == pytest.approx(np.std(list(BASE.values()), ddof=1), rel=1e-12)
    assert found.num == 3


def test_one_seed_has_no_deviation_and_no_seed_no_mean():
    assert aggregate.measured(records({4: 3.0}), "test/ppl") == aggregate.Spread(3.0, None, 1)
    assert aggregate.measured({}, "test/ppl") is None


def test_an_effect_is_paired_by_seed():
    found = aggregate.paired_effect(records(BRANCH), records(BASE), "test/ppl")
    base, branch = np.array(list(BASE.values())), np.array(list(BRANCH.values()))
    percent = 100 * (branch - base) / base
    assert (found.mean, found.sd) == pytest.approx((percent.mean(), percent.std(ddof=1)), rel=1e-12)


def test_only_seeds_that_both_rows_have_are_paired():
    found = aggregate.paired_effect(records(BRANCH), records({2: 111.9, 9: 1.0}), "test/ppl")
    assert (found.num, found.sd) == (1, None)
    assert found.mean == pytest.approx(100 * (109.3 / 111.9 - 1))
    assert aggregate.paired_effect(records(BRANCH), {}, "test/ppl") is None


def test_a_diverged_run_has_no_number_but_a_status(tmp_path):
    table = load_table(write(tmp_path, plain_table()), "small")
    row = table.row("branch")
    some = {1: record(108.0), 2: record(status="diverged")}
    assert aggregate.measured(some, "test/ppl").num == 1
    diverged = {seed: record(status="diverged") for seed in (1, 2)}
    assert aggregate.status(table, row, some) == "1 of 2 done, 1 of 2 diverged"
    assert aggregate.status(table, row, diverged) == "diverged"
    assert aggregate.status(table, row, {1: record(108.0)}) == "1 of 2 done"
    assert aggregate.status(table, row, records({1: 108.0, 2: 108.0})) == "done"
    assert aggregate.status(table, row, {}) == "not run"


def test_a_row_without_a_recipe_says_why(tmp_path):
    plain = plain_table()
    plain["rows"] += [
        {"id": "far", "label": "far", "scale": "paper"},
        {"id": "near", "label": "near", "scale": "reduced"},
    ]
    table = load_table(write(tmp_path, plain), "small")
    told = [aggregate.status(table, table.row(row_id), {}) for row_id in ("far", "near")]
    assert told == ["not implemented", "not implemented"]
    table = load_table(write(tmp_path, {**plain, "absent": "text not at hand"}), "small")
    told = [aggregate.status(table, table.row(row_id), {}) for row_id in ("far", "near", "base")]
    assert told == ["text not at hand", "not implemented", "not run"]


def test_the_published_effect_is_given_or_follows_from_two_published_numbers(tmp_path):
    plain = plain_table()
    plain["rows"][0]["paper"] = {"value": {"test/ppl": 100.0}, "where": "table 1", "verified": True}
    table = load_table(write(tmp_path, plain), "small")
    assert aggregate.paper_effect(table, table.row("branch")).percent == -2.7
    del plain["rows"][1]["effect"]["paper_percent"]
    table = load_table(write(tmp_path, plain), "small")
    derived = aggregate.paper_effect(table, table.row("branch"))
    assert (derived.percent, derived.verified) == (-10.0, False)  # one of the two is not verified
    assert aggregate.paper_effect(table, table.row("base")) is None


@pytest.mark.parametrize(
    ("value", "within"), [(91.7, True), (91.9, False), (88.3, True), (88.1, False)]
)
def test_tolerance_is_in_percent_of_the_published_number(tmp_path, value, within):
    table = load_table(write(tmp_path, plain_table()), "small")
    assert aggregate.within_tolerance(table, table.row("branch"), records({1: value})) is within
    assert aggregate.within_tolerance(table, table.row("branch"), {}) is None
    assert aggregate.within_tolerance(table, table.row("base"), records({7: value})) is None
