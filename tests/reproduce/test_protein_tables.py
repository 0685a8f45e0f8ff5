"""Numbers that stand in a table of proteins and in another file are the same."""

import json
from pathlib import Path

import pytest

from lit_seqlm.reproduce.table import load_table

FOLDER = Path(__file__).parents[2] / "experiments"
PROTEINLM, TAPE = FOLDER / "xiao2021_proteinlm", FOLDER / "rao2019_tape"
MODELS = {
    "unigram": "unigram",
    "trigram": "trigram",
    "5_gram": "5-gram",
    "two_sided_2_on_each_side": "two-sided, 2 on each side",
}


LISTS = {"cluster": "swissprot_sample_cascaded", "random": "swissprot_sample_random"}


@pytest.mark.parametrize("split", LISTS)
@pytest.mark.parametrize("row", MODELS)
def test_the_floor_is_that_of_the_ngrams(split: str, row: str) -> None:
    measured = json.loads((PROTEINLM / "ngrams.json").read_text())["splits"][LISTS[split]]
    said = load_table(PROTEINLM, "pretraining_cpu").row(f"{split}_{row}").expected.value
    assert said["test/ppl_hidden"] == pytest.approx(
        measured["models"][MODELS[row]]["ppl"], abs=5e-3
    )
    assert said["test/accuracy_hidden"] == pytest.approx(
        measured["models"][MODELS[row]]["accuracy"], abs=5e-4
    )


def published(folder: Path, table: str, row: str) -> dict[str, float]:
    return load_table(folder, table).row(row).paper.value


@pytest.mark.parametrize(
    ("table", "row", "key", "theirs"),
    [
        ("secondary_structure_cpu", "tape", "cb513/q3", "test/q3"),
        (
            "fluorescence_cpu",
            "tape",
            "test/spearman/log_fluorescence",
            "test/spearman/log_fluorescence",
        ),
        ("stability", "tape", "test/spearman/stability_score", "test/spearman/stability_score"),
    ],
)
def test_tapes_numbers_are_those_of_its_own_table(
    table: str, row: str, key: str, theirs: str
) -> None:
    said = published(PROTEINLM, table, row)[key]
    assert said == published(TAPE, "baselines", "transformer")[theirs]
    assert said == published(PROTEINLM, "downstream", "tape")[theirs]


@pytest.mark.parametrize(
    ("report", "over", "share"),
    [("swissprot_sample_cascaded", "0.3", "58 %"), ("swissprot_sample_cascaded", "0.5", "12 %"),
     ("swissprot_sample_random", "0.3", "90 %"), ("swissprot_sample_random", "0.5", "76 %")],
)  # fmt: skip
def test_what_the_note_says_of_leaks_is_in_the_reports(report: str, over: str, share: str) -> None:
    found = json.loads((PROTEINLM / f"leak/{report}.json").read_text())["relatives"]["over"][over]
    assert f"{100 * found:.0f} %" == share
    assert share in load_table(PROTEINLM, "pretraining_cpu").note


@pytest.mark.parametrize(
    ("report", "share"), [("cb513_netsurfp", "11 %"), ("cb513_swissprot_sample", "71 %")]
)
def test_what_the_note_says_of_cb513s_relatives_is_in_the_reports(report: str, share: str) -> None:
    found = json.loads((PROTEINLM / f"leak/{report}.json").read_text())
    assert f"{100 * found['relatives']['over']['0.3']:.0f} %" == share
    assert share in load_table(PROTEINLM, "secondary_structure_cpu").note
    if report == "cb513_swissprot_sample":
        note = load_table(PROTEINLM, "secondary_structure_cpu").note
        assert f"{found['exact']} of them the very same sequence" in note
