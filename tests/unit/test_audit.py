"""What the audit of a split finds, on leaks that are planted and on published files."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.audit import audit, group_overlap, num_conflicting
from lit_seqlm.data.molecule_properties import MoleculeProperties
from lit_seqlm.data.molecule_table import MoleculeTable
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.tokenizer.smiles import SmilesTokenizer


def data_of(source: Any) -> PropertyData:
    return PropertyData(
        source,
        SmilesTokenizer(None, "unk", False, 1),
        target="all",
        batching="random",
        batch_size=8,
        token_budget=64,
        window=32,
        multiple=8,
        eval_batch_size=8,
        max_len=None,
        over_long="skip",
        num_train=None,
        augment="none",
        seed=1,
    )


def table_of(tmp_path: Path, rows: list[str], split: str = "column") -> PropertyData:
    path = tmp_path / "molecules.csv"
    path.write_text("smiles,y,z,split\n" + "\n".join(rows) + "\n")
    source = MoleculeTable(
        str(path), "smiles", ["y", "z"], "regression", "eV", split, "split", 0.2, 0.2, 0, "keep", None
    )  # fmt: skip
    return data_of(source)


def test_planted_leaks_are_counted(tmp_path: Path) -> None:
    rows = ["C[C@H](O)F,1,5,train", "CCc1ccccc1,2,6,train", "CCC,3,7,train", "CCCC,4,8,valid"]
    rows += [
        "OCC1CCC1,2,6,train",  # another scaffold
        "CCC,9,7,train",  # as another row, with another label
        "F[C@@H](C)O,1,5,test",  # the other hand of the first row's
        "c1ccccc1CC,1,5,test",  # the second row, written another way
        "Nc1ccccc1,1,50,test",  # its scaffold; a label beyond those of training
        "C1CC1,1,5,test",  # nothing in common
        "CCCCO,1,5,test",  # no scaffold
    ]
    found = audit(table_of(tmp_path, rows))
    hands = rows[0].split(",")[0], "F[C@@H](C)O"
    from lit_seqlm.data.chemistry.canonical import canonicalize

    same_hand = canonicalize(hands[0], True).smiles == canonicalize(hands[1], True).smiles
    assert found.sizes == {"train": 5, "valid": 1, "test": 5}
    assert found.exact_duplicates == 1 + same_hand
    assert found.merged_duplicates == 2
    assert found.overlap.share == pytest.approx(2 / 3)
    assert found.conflicting == 2
    assert [target.num_outside for target in found.ranges] == [0, 1]
    assert found.as_dict()["looks_standardised"] == []


def test_strict_scaffolds_leave_no_overlap(tmp_path: Path) -> None:
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNC1", "c1ccoc1", "C1CC1", "C1CCC1"]
    rows = [f"{'C' * tail}{ring},{tail},1," for ring in rings for tail in range(1, 9)]
    rows += [f"{'C' * tail}{ring},{tail},2," for ring in rings for tail in range(1, 3)]
    strict = audit(table_of(tmp_path, rows, "scaffold_strict"))
    assert (strict.overlap.share, strict.merged_duplicates) == (0.0, 0)
    assert strict.overlap.random_mean > 0.9
    at_random = audit(table_of(tmp_path, rows, "random"))
    assert at_random.overlap.share > 0.9
    assert at_random.merged_duplicates > 0


def test_overlap_by_hand() -> None:
    groups = {"train": ["a", "a", "b", ""], "valid": ["c"], "test": ["a", "c", "", "b"]}
    assert group_overlap(groups).share == pytest.approx(2 / 3)
    alike = {"train": ["a"] * 9, "valid": ["a"], "test": ["a"] * 3}
    assert group_overlap(alike) == group_overlap(alike)
    assert (group_overlap(alike).random_mean, group_overlap(alike).random_std) == (1.0, 0.0)
    assert np.isnan(group_overlap({"train": [""], "valid": [""], "test": [""]}).share)


def test_conflicts_by_hand() -> None:
    nan = np.nan
    labels_NK = np.array([[1, nan], [1, 2.0], [3, 0], [3, 0], [4, 0], [4, 1], [nan, nan]])
    assert num_conflicting(list("aabbccd"), labels_NK) == 2
    labels_NK[0, 1] = 3
    assert num_conflicting(list("aabbccd"), labels_NK) == 4


def test_standardised_and_repeated_labels_are_suspected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).normal(size=60)
    values[:40] = (values[:40] - values[:40].mean()) / values[:40].std()
    words = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10
    rows = [
        f"{'C' * (n + 1)},{v},{v},{w}" for n, (v, w) in enumerate(zip(values, words, strict=True))
    ]
    found = audit(table_of(tmp_path, rows))
    assert found.as_dict()["looks_standardised"] == ["y", "z"]
    assert found.same_labels == [("y", "z")]
    with caplog.at_level(logging.INFO):
        found.report()
    assert "an error in them is not in eV" in caplog.text
    assert "40 / 10 / 10" in caplog.text


def published(name: str) -> PropertyData:
    data_dir = os.environ["LIT_SEQLM_DATA"]
    return data_of(MoleculeProperties(name, data_dir, None, None, "published", 0))


@pytest.mark.data
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_bbbp_as_published() -> None:
    found = audit(published("bbbp"))
    assert (found.exact_duplicates, found.merged_duplicates) == (10, 15)
    assert found.dropped == {"train": 5, "valid": 0, "test": 2}
    assert found.overlap.share == pytest.approx(0.57, abs=0.005)
    assert found.overlap.random_mean == pytest.approx(0.58, abs=0.02)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
@pytest.mark.parametrize(
    ("name", "exact", "merged", "share"), [("qm8", 4, 4, 0.87), ("lipophilicity", 0, 14, 0.50)]
)
def test_other_published_splits(name: str, exact: int, merged: int, share: float) -> None:
    found = audit(published(name))
    assert (found.exact_duplicates, found.merged_duplicates) == (exact, merged)
    assert found.overlap.share == pytest.approx(share, abs=0.005)
    wanted = ["logd"] if name == "lipophilicity" else []
    assert found.as_dict()["looks_standardised"] == wanted
