"""Folds of domains in files as the published ones are laid out, made here."""

from pathlib import Path

import pooch
import pytest

from lit_seqlm.data.proteins.remote_homology import LISTS, TESTS, RemoteHomology
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

TOKENIZER = AminoAcidTokenizer("cls", "keep", False)
TRAIN = [("d1", "a.1", "MKV"), ("d2", "a.2", "MKL"), ("d3", "b.1", "WWW"), ("d4", "b.1", "CCC")]
HELD_OUT = {"valid": [("d5", "a.1", "AAA")], "fold": [("d6", "a.2", "GGG")]}
HELD_OUT |= {"superfamily": [("d7", "a.1", "DDD")], "family": [("d8", "c.1", "EEE")]}
LISTED = 7  # training domains, of four folds


def source(
    folder: Path, drop: bool = True, **changed: list[tuple[str, str, str]]
) -> RemoteHomology:
    """The set with other domains in some splits."""
    made = RemoteHomology(str(folder), drop)
    made.files.folder.mkdir(parents=True)
    lines = ["split\tscop_id\tfold\tsequence\tsource"]
    for split, domains in ({"train": TRAIN} | HELD_OUT | changed).items():
        said = f"test_{split}" if split in TESTS else split
        lines += ["\t".join([said, *domain, "made"]) for domain in domains]
    (made.files.folder / "recoverable_three_level.tsv").write_text("\n".join(lines) + "\n")
    for name in LISTS.values():
        text = "".join(f"d{n}\t100\ta.{n % 4}\ta.{n % 4}\n" for n in range(LISTED))
        (made.files.folder / name).write_text(text)
    names = list(made.files.hashes)
    made.files.hashes = {name: pooch.file_hash(str(made.files[name])) for name in names}
    return made


def test_the_card_counts_what_is_learnt(tmp_path: Path) -> None:
    whole = source(tmp_path / "whole")
    assert whole.card["data"] == "partial: 4 of 7 training domains, 3 of 4 folds"
    fewer = source(tmp_path / "fewer", fold=[("d6", "a.2", "MKL")])
    assert fewer.card["data"] == "partial: 3 of 7 training domains, 2 of 4 folds"
    assert len(fewer.table("train", TOKENIZER)) == 3
    kept = source(tmp_path / "kept", drop=False, fold=[("d6", "a.2", "MKL")])
    assert kept.card["data"] == "partial: 4 of 7 training domains, 3 of 4 folds"


@pytest.mark.parametrize("split", ["train", "valid"])
def test_what_is_tested_is_left_out_by_its_row(tmp_path: Path, split: str) -> None:
    twin = source(tmp_path, family=[("d8", "c.1", {"train": "WWW", "valid": "AAA"}[split])])
    table = twin.table(split, TOKENIZER)
    row, name = {"train": (3, "d3"), "valid": (5, "d5")}[split]
    assert table.dropped == [(row, f"{name} has the sequence of one in test family")]


@pytest.mark.parametrize(
    ("written", "said"),
    [("AGUDA", "aguda"), ("aguda*", "AGUDA"), (" AGUDA", "AGXDA"), ("AGDA-", "A.GDA")],
)
@pytest.mark.parametrize("ambiguous", ["keep", "to_x"])
def test_forms_that_a_model_may_read_alike_are_one_sequence(
    tmp_path: Path, written: str, said: str, ambiguous: str
) -> None:
    """Whatever the tokenizer: which folds are learnt does not depend on it."""
    train = [*TRAIN, ("d9", "z.1", written)]
    twin = source(tmp_path, train=train, family=[("d8", "c.1", said)])
    table = twin.table("train", AminoAcidTokenizer("cls", ambiguous, True))
    assert table.names == [name for name, _, _ in TRAIN]
    assert table.dropped == [(5, "d9 has the sequence of one in test family")]
    assert "z.1" not in twin.classes
