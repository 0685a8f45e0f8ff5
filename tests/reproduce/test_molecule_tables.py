"""Published numbers of MoLFormer agree with each other: every average is that of its own column."""

from pathlib import Path

import pytest

from lit_seqlm.reproduce.aggregate import paper_effect
from lit_seqlm.reproduce.table import load_table

FOLDER = Path(__file__).parents[2] / "experiments" / "ross2022_molformer"
# Standard deviations over the 13,389 test molecules of the published split, in the units of the table.
TEST_STD = {
    "mu": 1.534, "alpha": 8.235, "homo": 0.02201, "lumo": 0.0467, "gap": 0.04745, "r2": 277.37,
    "zpve": 0.03334, "u0": 40.643, "u298": 40.643, "h298": 40.643, "g298": 40.644, "cv": 4.0857,
}  # fmt: skip
ENERGIES = ("u0", "u298", "h298", "g298")


def published(table: str) -> dict[str, dict[str, float]]:
    rows = load_table(FOLDER, table).rows
    return {row.id: row.paper.value for row in rows if row.paper}


def expected(table: str) -> dict[str, dict[str, float]]:
    rows = load_table(FOLDER, table).rows
    return {row.id: row.expected.value for row in rows if row.expected}


def column(row: str) -> dict[str, float]:
    """The twelve errors of a model of the paper, energies as they were printed."""
    printed = published("qm9_printed_energies").get(row, {})
    values = {key.removeprefix("test/"): x for key, x in published("qm9")[row].items()}
    values |= {key.removesuffix("_printed"): x for key, x in printed.items()}
    return {measure: values[f"mae/{measure}"] for measure in TEST_STD}


@pytest.mark.parametrize("row", published("qm9"))
def test_the_average_is_that_of_the_column(row: str) -> None:
    average = sum(column(row).values()) / len(TEST_STD)
    assert average == pytest.approx(published("qm9")[row]["test/avg_mae_paper"], abs=6e-4)


@pytest.mark.parametrize("row", [row for row in published("qm9") if row != "smi_ted_ft"])
def test_the_std_mae_is_that_of_the_column(row: str) -> None:
    """As printed, so the energies of the graph models are divided by the deviation of totals."""
    ratio = sum(error / TEST_STD[measure] for measure, error in column(row).items()) / len(TEST_STD)
    assert ratio == pytest.approx(published("qm9")[row]["test/std_mae"], abs=1.5e-4)


def test_molformers_row_is_the_papers() -> None:
    row = published("qm9")["molformer_xl"]
    assert (row["test/avg_mae_paper"], row["test/std_mae"]) == (1.5894, 0.0567)
    assert row["test/mae/r2"] / sum(column("molformer_xl").values()) == pytest.approx(
        0.89, abs=6e-3
    )


@pytest.mark.parametrize("row", expected("qm8_baselines"))
def test_the_average_of_qm8_is_that_of_the_column(row: str) -> None:
    values = expected("qm8_baselines")[row]
    errors = [error for key, error in values.items() if key.startswith("test/mae/")]
    assert len(errors) == 12
    assert sum(errors) / 12 == pytest.approx(values["test/avg_mae_paper"], abs=6e-5)


WHOLE = [row for row, values in expected("qm9_baselines").items() if "test/std_mae" in values]


@pytest.mark.parametrize("row", WHOLE)  # but the forests, whose r2 was of another kind
def test_the_std_mae_of_a_baseline_is_that_of_its_column(row: str) -> None:
    values = expected("qm9_baselines")[row]
    ratio = sum(values[f"test/mae/{m}"] / deviation for m, deviation in TEST_STD.items()) / 12
    assert ratio == pytest.approx(values["test/std_mae"], rel=0.01)  # other deviations, 13,081


@pytest.mark.parametrize(
    ("ours", "theirs", "row"),
    [
        ("qm8_cpu", "qm8", "molformer_xl"),
        ("qm8_cpu", "qm8", "smi_ted"),
        ("qm9_cpu", "qm9", "molformer_xl"),
        ("qm9_cpu", "qm9", "smi_ted_ft"),
    ],
)
def test_a_number_that_stands_twice_is_the_same(ours: str, theirs: str, row: str) -> None:
    assert published(ours)[row] == published(theirs)[row]


def test_smi_teds_average_of_qm8_is_that_of_its_column() -> None:
    values = published("qm8")["smi_ted"]
    errors = [error for key, error in values.items() if key.startswith("test/mae/")]
    assert sum(errors) / 12 == pytest.approx(values["test/avg_mae_paper"], abs=6e-5)


def test_rotary_positions_harm_after_the_smaller_corpora_only() -> None:
    table = load_table(FOLDER, "positions")
    effects = {row.id: paper_effect(table, row) for row in table.rows if row.effect}
    signs = {row: effect.percent > 0 for row, effect in effects.items() if effect}
    assert signs == {
        "qm9_only_finetuned_rotary": True,
        "pubchem_finetuned_rotary": True,
        "pubchem_zinc_finetuned_rotary": False,
    }


def test_totals_and_atomisation_energies_share_no_column() -> None:
    for row, values in published("qm9").items():
        has_totals = any(f"test/mae/{energy}" in values for energy in ENERGIES)
        assert has_totals == (row not in published("qm9_printed_energies"))
