"""The published sets of labelled residues, pairs and chains: as many as were counted, and what structure they show."""

import os
import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.annotated import AnnotatedData
from lit_seqlm.data.annotated_table import OUTSIDE
from lit_seqlm.data.proteins.homology import has_mmseqs
from lit_seqlm.data.proteins.remote_homology import RemoteHomology
from lit_seqlm.data.proteins.secondary_structure import SecondaryStructure
from lit_seqlm.data.proteins.split_lists import accession_hash, read_split_list
from lit_seqlm.data.proteins.structures import PdbChain, PdbChains, PdbContacts
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer
from tests.conftest import ROOT as PROJECT

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset"),
]
ROOT = os.environ.get("LIT_SEQLM_DATA", ".")
TOKENIZER = AminoAcidTokenizer("cls", "keep", False)


def structure(**changes: Any) -> SecondaryStructure:
    options = {"name": "secondary_structure", "data_dir": ROOT, "classes": 3, "pdb_split": None}
    return SecondaryStructure(
        **(options | {"train_on": "all", "drop_test_overlaps": True} | changes)
    )


def data(source: Any, over_long: str = "windows") -> AnnotatedData:
    made = AnnotatedData(source, TOKENIZER, 4096, 16384, 1024, 510, over_long, None, 1)
    made.prepare_data()
    made.setup()
    return made


@pytest.fixture(scope="module")
def netsurfp2() -> AnnotatedData:
    return data(structure())


@pytest.fixture(scope="module")
def chains() -> list[PdbChain]:
    return list(PdbChains("contacts_pdb", ROOT, "pdb_chains_cluster").read())


def counted(made: AnnotatedData, split: str, scope: str) -> np.ndarray:
    """Residues of each class in a scope, as batches give them: every one of them once."""
    counts, table = np.zeros(len(made.classes), int), made.tables[split].table
    for batch in made.exact_dataloader(split):
        for sites_T, row in zip(batch.sites.numpy(), batch.rows_B.tolist(), strict=True):
            part = table.scopes[scope][row]
            counts += np.bincount(sites_T[1 : 1 + len(part)][part], minlength=len(counts))
    return counts


def test_the_chains_are_those_of_the_publications(netsurfp2: AnnotatedData) -> None:
    numbers = {split: len(set(t.proteins_N.tolist())) for split, t in netsurfp2.tables.items()}
    # Two of training and one of validation have the sequence of a test chain.
    assert numbers == {
        "train": 9712 - 2,
        "valid": 1080 - 1,
        "cb513": 511,
        "ts115": 115,
        "new364": 364,
    }
    names = [row.reason.split()[0] for row in netsurfp2.tables["train"].table.dropped]
    assert names == ["1wfb-A", "5jen-C"]
    whole = structure(drop_test_overlaps=False)
    assert [len(whole.table(split, TOKENIZER)) for split in ("train", "valid")] == [9712, 1080]


@pytest.mark.parametrize(
    ("split", "scope", "residues", "majority"),
    [
        ("cb513", "all", 144_011, 0.438),
        ("cb513", "resolved", 144_011 - 3_525, None),
        ("cb513", "masked", 83_991, None),
        ("cb513", "masked_resolved", 83_427, 0.427),
        ("ts115", "all", 29_704, None),
        ("ts115", "resolved", 27_501, None),
        ("new364", "resolved", 75_402, None),
        ("train", "resolved", 2_319_721, 0.387),
        ("valid", "resolved", 262_817, 0.395),
    ],
)
def test_residues_in_scope_are_those_that_were_counted(
    netsurfp2: AnnotatedData, split: str, scope: str, residues: int, majority: float | None
) -> None:
    counts = counted(netsurfp2, split, scope)
    assert counts.sum() == residues
    if majority is not None:
        assert counts.max() / residues == pytest.approx(majority, abs=6e-4)


def test_unresolved_residues_are_labelled_c_or_not_learnt() -> None:
    whole = structure(drop_test_overlaps=False).table("train", TOKENIZER)
    hidden = np.concatenate([~part for part in whole.scopes["resolved"]])
    labels = np.concatenate(list(whole.labels))
    assert hidden.sum() == 159_810
    assert (labels[hidden] == 2).all()
    source = structure(drop_test_overlaps=False, train_on="resolved")
    learnt = np.concatenate(list(source.table("train", TOKENIZER).labels))
    assert (learnt[hidden] == -1).all()
    assert np.array_equal(learnt[~hidden], labels[~hidden])
    assert (np.concatenate(list(source.table("valid", TOKENIZER).labels)) >= 0).all()


def test_helices_and_strands_prefer_the_residues_that_they_are_known_for(
    netsurfp2: AnnotatedData,
) -> None:
    """A shift by one residue, or labels in another order, would blur this."""
    table = netsurfp2.tables["train"].table
    letters = np.array(list("".join(table.sequences)))
    labels = np.concatenate(list(table.labels))
    shares = {
        letter: np.bincount(labels[(letters == letter) & (labels >= 0)], minlength=3)
        for letter in "AELVIYPGN"
    }
    helix, strand, coil = (counts_of(labels, number) for number in range(3))
    preference = {a: counts / counts.sum() / (helix, strand, coil) for a, counts in shares.items()}
    assert min(preference[a][0] for a in "AEL") > 1.2
    assert max(preference[a][0] for a in "PGN") < 0.8
    assert min(preference[a][1] for a in "VIY") > 1.4
    assert min(preference[a][2] for a in "PGN") > 1.3


def counts_of(labels: np.ndarray, number: int) -> float:
    return (labels == number).sum() / (labels >= 0).sum()


def test_eight_classes_of_the_pdb_group_to_three() -> None:
    eight = structure(classes=8, pdb_split="pdb_chains_clear")
    three = structure(classes=3, pdb_split="pdb_chains_clear")
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 2])  # of G H I B E S T C
    for split in ("valid", "pdb", "cb513", "ts115"):
        fine, coarse = eight.table(split, TOKENIZER), three.table(split, TOKENIZER)
        assert fine.names == coarse.names
        agreeing = [
            np.mean(groups[a] == b) for a, b in zip(fine.labels, coarse.labels, strict=True)
        ]
        assert min(agreeing) == 1.0
    found = Counter(np.concatenate(list(eight.table("train", TOKENIZER).labels)).tolist())
    assert found.most_common(1)[0][0] == eight.classes.index("H")
    assert eight.tests == ("cb513", "ts115", "pdb")


@pytest.mark.parametrize("name", ["entry", "cluster", "clear"])
def test_no_entry_and_no_sequence_is_in_two_splits(name: str, chains: list[PdbChain]) -> None:
    held_out = read_split_list(f"pdb_chains_{name}")
    assert len({accession_hash(chain.name) for chain in chains}) == len(chains) == 5_000
    entries, sequences = {}, {}
    for chain in chains:
        split = held_out.split_of(chain.name)
        assert entries.setdefault(chain.name[:4], split) == split
        assert sequences.setdefault(chain.sequence, split) == split
    held_out.check_used("chains")
    counts = Counter(held_out.split_of_hash.values())
    assert counts["valid"] == 250
    assert counts["test"] == {"entry": 500, "cluster": 501, "clear": 1013}[name]


@pytest.mark.slow
@pytest.mark.skipif(not has_mmseqs(), reason="mmseqs is not installed")
def test_as_many_chains_are_relatives_of_the_benchmarks_as_is_said(
    chains: list[PdbChain], tmp_path: Path
) -> None:
    script = runpy.run_path(str(PROJECT / "experiments" / "pdb_splits.py"))
    tool, clear = script["TOOL"], read_split_list("pdb_chains_clear")
    if tool.said("search") not in clear.made["also_test"]:
        pytest.skip("the lists were made with another mmseqs")
    fasta = script["written"](tmp_path / "c.fasta", {one.name: one.sequence for one in chains})
    tests = script["written"](tmp_path / "t.fasta", script["benchmarks"](ROOT))
    relatives = {hit.target for hit in tool.search(tests, fasta, tmp_path)}
    learnt = {
        name: sum(
            read_split_list(f"pdb_chains_{name}").split_of(one) == "train" for one in relatives
        )
        for name in ("clear", "cluster", "entry")
    }
    in_valid = sum(clear.split_of(one) == "valid" for one in relatives)
    assert learnt["clear"] == 0
    option = (PROJECT / "conf/data/secondary_structure_pdb.yaml").read_text()
    assert re.findall(r"(\d+) chains", option) == [str(in_valid), str(learnt["cluster"])]
    said = re.search(r"the (\d+) chains .* on (\d+), pdb_chains_entry on (\d+)", script["__doc__"])
    assert said is not None
    numbers = len(relatives), learnt["cluster"], learnt["entry"]
    assert said.groups() == tuple(map(str, numbers))


def test_a_list_of_other_chains_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"valid {accession_hash('1ABC-A')}\ntest {accession_hash('1ABD-A')}\n")
    with pytest.raises(UserError, match="lacks 2 of the 2"):
        list(PdbChains("contacts_pdb", ROOT, str(path)).of("train"))


def test_contacts_are_distances_and_helices_show_every_fourth_residue(
    chains: list[PdbChain],
) -> None:
    source = PdbContacts(ROOT, "ca", "pdb_chains_cluster", 8.0, False, 0)
    table = source.table("valid", TOKENIZER)
    by_name = {chain.name: chain for chain in chains}
    inside: dict[int, list[np.ndarray]] = {step: [] for step in (2, 3, 4, 5, 7)}
    for name, map_LL in zip(table.names[:80], table.labels, strict=False):
        chain = by_name[name]
        points = chain.ca_L3 / 10
        for i, j in ((0, 5), (3, 20), (10, 39)):
            distance = np.sqrt(((points[i] - points[j]) ** 2).sum())
            assert map_LL[i, j] == map_LL[j, i] == (distance < 8.0)
        assert (np.diag(map_LL) == 1).all()
        for step, found in inside.items():
            whole = np.array(
                [
                    "H" * (step + 1) == chain.dssp[i : i + step + 1]
                    for i in range(len(points) - step)
                ]
            )
            found.append(np.diagonal(map_LL, step)[whole])
    shares = {step: np.concatenate(found).mean() for step, found in inside.items()}
    assert min(shares[step] for step in (2, 3, 4)) > 0.99  # 1.5 Angstrom a residue along the axis
    assert shares[7] < 0.01


def test_near_pairs_are_left_to_evaluation() -> None:
    source = PdbContacts(ROOT, "cb", "pdb_chains_cluster", 8.0, False, 6)
    apart = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    for split, least in (("train", 6), ("valid", 0), ("test", 0)):
        map_LL = source.table(split, TOKENIZER).labels[0][:40, :40]
        assert np.array_equal(map_LL == -1, apart < least)
        assert set(np.unique(map_LL)) <= {-1, 0, 1}


def test_every_chain_is_in_a_batch_with_its_contacts() -> None:
    made = data(PdbContacts(ROOT, "cb", "pdb_chains_cluster", 8.0, False, 6), "error")
    assert [len(made.tables[split]) for split in ("train", "valid", "test")] == [4249, 250, 501]
    for batch in made.exact_dataloader("valid"):
        lengths = (batch.tokens_BT >= 5).sum(1)
        assert int((batch.sites >= 0).sum()) == int((lengths**2).sum())


def test_remote_homology_is_a_part_and_its_other_folds_are_wrong() -> None:
    source = RemoteHomology(ROOT, False)
    found = {split: source.table(split, TOKENIZER) for split in ("train", "valid", *source.tests)}
    assert list(map(len, found.values())) == [2270, 115, 76, 204, 277]
    assert [source.num_listed(split) for split in found] == [12_312, 736, 718, 1_254, 1_272]
    assert len(source.classes) == 516
    outside = [list(table.labels).count(OUTSIDE) for table in found.values()]
    assert outside == [0, 7, 5, 12, 5]
    assert set(found["train"].labels) == set(range(516))
    assert source.card["data"] == "partial: 2,270 of 12,312 training domains, 516 of 1,195 folds"
    clean = data(RemoteHomology(ROOT, True), "truncate")
    assert clean.source.card["data"].startswith("partial: 2,264 of 12,312 training domains, 516 ")
    tested = {one for test in source.tests for one in found[test].sequences}
    assert not tested & set(clean.tables["train"].table.sequences)
    assert [len(clean.tables[split]) for split in ("train", "valid")] == [2264, 114]
