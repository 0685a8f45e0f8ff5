"""Nothing is in two splits, the same command gives the same bytes, and a copy of the training set is found out."""

import dataclasses
import hashlib
import json
import os
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.proteins import homology
from lit_seqlm.data.proteins.clusters import draw_groups, families, grouped
from lit_seqlm.data.proteins.corpus import ProteinCorpus
from lit_seqlm.data.proteins.homology import Hit, Mmseqs, has_mmseqs, read_pairs
from lit_seqlm.data.proteins.leak import LeakReport, leak_report, list_best, shown
from lit_seqlm.data.proteins.named import named_sequences
from lit_seqlm.data.proteins.split_lists import (
    SplitList,
    accession_hash,
    read_split_list,
    write_split_list,
)
from lit_seqlm.data.proteins.split_options import SplitOptions
from lit_seqlm.data.proteins.splitting import divide
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import STANDARD, AminoAcidTokenizer

ROOT = Path(__file__).parents[2]
TOOL = Mmseqs("linclust", 0.3, 0.8, 5.7, threads=1)
CASCADE = dataclasses.replace(TOOL, method="cluster")
LISTS = {
    "swissprot_sample_random": "7e865bc37c8654d8",
    "swissprot_sample_cluster": "240a04cce8f93f2d",
    "swissprot_sample_cascaded": "c41d4c4718b41eb7",
}
RESULTS = ROOT / "experiments" / "xiao2021_proteinlm"
SIZES = {"valid": 20, "test": 20}
needs_mmseqs = pytest.mark.skipif(not has_mmseqs(), reason="mmseqs is not installed")


def protein(generator: np.random.Generator, length: int) -> str:
    return "".join(generator.choice(list(STANDARD), length))


def relative(generator: np.random.Generator, sequence: str, share: float) -> str:
    """With a share of its residues drawn anew."""
    drawn = protein(generator, len(sequence))
    changed = generator.random(len(sequence)) < share
    return "".join(b if c else a for a, b, c in zip(sequence, drawn, changed, strict=True))


def homologues(num_families: int, seed: int) -> dict[str, str]:
    """Families of one to six proteins that are alike to about 80 %; some repeat, one is short, one long."""
    generator = np.random.default_rng(seed)
    found: dict[str, str] = {}
    for family in range(num_families):
        first = protein(generator, int(generator.integers(60, 150)))
        for member in range(int(generator.integers(1, 7))):
            found[f"F{family}M{member}"] = relative(generator, first, 0.2) if member else first
    found |= {
        "SHORT": "MKV",
        "LONG": protein(generator, 600),
        "COPY1": found["F0M0"],
        "COPY2": found["F3M0"],
    }
    return found


def write_table(path: Path, proteins: dict[str, str]) -> Path:
    rows = [f"{name}\t{sequence}" for name, sequence in proteins.items()]
    path.write_text("\n".join(["accession\tsequence", *rows]) + "\n")
    return path


def options(folder: Path, proteins: dict[str, str], **changed: Any) -> SplitOptions:
    asked = SplitOptions(
        file=write_table(folder / "corpus.tsv", proteins), column=None, output=folder / "split", split="random",
        sizes=SIZES, min_len=30, max_len=512, seed=0, gapped=False, clusters=None, families=None,
        test_families=(), search=False, tool=TOOL,
    )  # fmt: skip
    return dataclasses.replace(asked, **changed)


def family_of(name: str) -> str:
    return name.partition("M")[0]


def clusters_of(folder: Path, proteins: dict[str, str]) -> Path:
    """The true families, as mmseqs would write them."""
    path = folder / "true.tsv"
    path.write_text("".join(f"{family_of(name)}\t{name}\n" for name in proteins))
    return path


def sides(proteins: dict[str, str], held_out: SplitList) -> dict[str, dict[str, str]]:
    """What each split has, as a corpus reads it: of equal sequences the first, of a right length."""
    found: dict[str, dict[str, str]] = {"train": {}, "valid": {}, "test": {}}
    seen: set[str] = set()
    for name, sequence in proteins.items():
        if 30 <= len(sequence) <= 512 and sequence not in seen:
            seen.add(sequence)
            found[held_out.split_of(name)][name] = sequence
    held_out.check_used("corpus.tsv")
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("split", ["random", "cluster"])
def test_nothing_is_in_two_splits(tmp_path: Path, split: str, seed: int) -> None:
    proteins = homologues(60, seed)
    given = clusters_of(tmp_path, proteins) if split == "cluster" else None
    content, report = divide(options(tmp_path, proteins, split=split, seed=seed, clusters=given))
    found = sides(proteins, read_split_list(str(tmp_path / "split" / "split.txt")))
    assert {name: len(side) for name, side in found.items()} == {k: content[k] for k in found}
    assert sum(map(len, found.values())) == content["proteins"]["kept"] == len(proteins) - 4
    names = Counter(name for side in found.values() for name in side)
    sequences = Counter(sequence for side in found.values() for sequence in side.values())
    assert set(names.values()) == set(sequences.values()) == {1}
    assert report.exact == 0
    if split == "random":
        assert (content["valid"], content["test"]) == (20, 20)
    else:
        assert 20 <= content["valid"] <= 21  # a cluster at most, and at most 5 % more
        where = Counter(
            family for side in found.values() for family in {family_of(n) for n in side}
        )
        assert set(where.values()) == {1}


def test_counts_say_what_was_left_out(tmp_path: Path) -> None:
    proteins = homologues(60, 0)
    content, _ = divide(options(tmp_path, proteins))
    kept = len(proteins) - 4
    assert content["proteins"] == {
        "read": len(proteins),
        "other_length": 2,
        "repeated": 2,
        "kept": kept,
    }
    assert (
        json.loads((tmp_path / "split" / "manifest.json").read_text())["proteins"]
        == content["proteins"]
    )


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    proteins = homologues(60, 1)
    given = clusters_of(tmp_path, proteins)
    written = []
    for seed in (0, 0, 1):
        divide(options(tmp_path, proteins, split="cluster", seed=seed, clusters=given))
        files = sorted((tmp_path / "split").iterdir())
        assert [path.name for path in files] == ["leak.json", "manifest.json", "split.txt"]
        written.append([path.read_bytes() for path in files])
        shutil.rmtree(tmp_path / "split")
    assert written[0] == written[1] != written[2]


def test_families_are_held_out_whole(tmp_path: Path) -> None:
    proteins = homologues(60, 2)
    table = tmp_path / "families.tsv"
    lines = [f"{name}\t{family_of(name)}" for name in proteins if name.startswith("F")]
    lines += ["F5M0\tF6", "NOBODY\tF7"]  # of two families, and of no protein
    table.write_text("# accession, family\n" + "\n".join(lines) + "\n")
    asked = options(tmp_path, proteins, split="family", families=table, test_families=("F5", "F9"))
    content, _ = divide(asked)
    found = sides(proteins, read_split_list(str(tmp_path / "split" / "split.txt")))
    assert {family_of(name) for name in found["test"]} == {"F5", "F9"}
    assert content["held_out_families"]["test"] == ["F5", "F9"]
    assert not {family_of(name) for name in found["valid"]} & {family_of(n) for n in found["train"]}
    assert "F6" not in content["held_out_families"]["valid"]  # it has a protein of the test


def test_a_group_of_the_other_split_is_passed_over() -> None:
    """b and c share p3; whichever comes first, they are never valid and test."""
    groups = {"a": ["p1"], "b": ["p2", "p3"], "c": ["p3", "p4"], "d": ["p5", "p6"], "e": ["p7"]}
    groups |= {f"f{i}": [f"q{i}"] for i in range(9)}
    for seed in range(30):
        held_out = draw_groups(groups, {"valid": 4, "test": 4}, seed)
        for split, names in held_out.groups.items():
            assert {m for n in names for m in groups[n]} == {
                m for m, one in held_out.split_of.items() if one == split
            }


def test_a_group_too_large_is_trained_on() -> None:
    groups = {"huge": [f"h{i}" for i in range(100)], **{f"g{i}": [f"p{i}"] for i in range(50)}}
    for seed in range(10):
        held_out = draw_groups(groups, SIZES, seed)
        assert held_out.count("valid") == held_out.count("test") == 20
        assert not any(name.startswith("h") for name in held_out.split_of)


def test_a_copy_of_training_leaks_wholly(tmp_path: Path) -> None:
    train = [sequence for sequence in homologues(20, 3).values() if len(sequence) > 30]
    report, best = leak_report(train, iter(train), len(train), tmp_path / "work", None)
    assert report.exact_share == 1
    assert (best == 1).all()
    assert report.sae_3 == pytest.approx(0, abs=1e-12)
    assert report.relatives is None
    report.write(tmp_path / "leak.json", made_for="a test")
    assert LeakReport.read(tmp_path / "leak.json") == report
    assert json.loads((tmp_path / "leak.json").read_text())["made_for"] == "a test"


@needs_mmseqs
def test_the_search_tells_copies_relatives_and_strangers(tmp_path: Path) -> None:
    """A copy too short to be aligned counts as seen; a relative by the share of its residues that are the same."""
    generator = np.random.default_rng(6)
    train = [*(protein(generator, 200) for _ in range(10)), "MKVLAA"]
    changed = "".join("A" if i % 4 == 0 else a for i, a in enumerate(train[1]))
    same = np.mean([a == b for a, b in zip(train[1], changed, strict=True)])
    part = train[2][:60] + protein(generator, 140)
    test = [train[0], changed, part, protein(generator, 200), "MKVLAA"]
    report, best = leak_report(test, iter(train), len(train), tmp_path / "work", TOOL)
    assert best == pytest.approx([1, same, -1, -1, 1], abs=0.02)
    found = report.relatives
    assert found is not None
    assert (found.over, found.unaligned) == ({"0.3": 0.6, "0.5": 0.6, "0.9": 0.4}, 2)
    assert found.any_coverage == {"0.3": 0.8, "0.5": 0.8, "0.9": 0.6}
    assert (sum(found.histogram), found.histogram[-1]) == (3, 2)
    report.write(tmp_path / "leak.json")
    assert LeakReport.read(tmp_path / "leak.json") == report
    assert "60.0% (any part 80.0%)" in "".join(shown([report]).columns[1]._cells)  # type: ignore[arg-type]


def test_the_best_hit_counts_and_a_short_one_apart() -> None:
    hits = [
        Hit("n0", "n5", 0.4, 0.9),
        Hit("n0", "n6", 0.9, 0.1),
        Hit("n0", "n7", 0.3, 1.0),
        Hit("n2", "n1", 0.5, 0.5),
    ]
    wide, any_part = list_best(hits, 3)
    assert wide.tolist() == [0.4, -1, 0.5]
    assert any_part.tolist() == [0.9, -1, 0.5]


@needs_mmseqs
@pytest.mark.slow
def test_mmseqs_finds_the_families(tmp_path: Path) -> None:
    """Of 80 % identity none is missed by the slower method. Its own clusters, given to it, make the same list."""
    proteins = homologues(40, 5)
    content, report = divide(
        options(tmp_path, proteins, split="cluster", search=True, tool=CASCADE)
    )
    pairs = list(read_pairs(tmp_path / "split" / "clusters.tsv"))
    found = grouped(pairs, [name for _, name in pairs], "clusters.tsv")
    truth = {family_of(name) for _, name in pairs}
    assert len(found) == len(truth)
    assert all(len({family_of(name) for name in members}) == 1 for members in found.values())
    assert report.relatives is not None
    assert report.relatives.over["0.5"] == 0
    assert "--min-seq-id 0.3 -c 0.8" in content["groups"]
    (tmp_path / "given").mkdir()
    given = options(
        tmp_path / "given", proteins, split="cluster", clusters=tmp_path / "split" / "clusters.tsv"
    )
    assert divide(given)[0]["list"] == content["list"]


def test_without_mmseqs_it_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> None:
    monkeypatch.setattr(homology.shutil, "which", lambda name: None)
    proteins = homologues(30, 7)
    with pytest.raises(UserError, match="apt-get install mmseqs2"):
        divide(options(tmp_path, proteins, split="cluster"))
    assert not (tmp_path / "split").exists()
    given = clusters_of(tmp_path, proteins)
    _, report = divide(options(tmp_path, proteins, split="cluster", clusters=given, search=True))
    assert report.relatives is None
    assert "no identities" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sizes": {"valid": 0, "test": 5}}, "--valid 0: at least 1"),
        ({"sizes": {"valid": 500, "test": 5}}, "some have to be left"),
        ({"min_len": 9, "max_len": 8}, "no length is both"),
        ({"min_len": 5000, "max_len": None}, "none of .* proteins has a length"),
        ({"split": "family"}, "need each other"),
        ({"clusters": Path("x")}, "--clusters has no effect"),
        ({"test_families": ("F1",)}, "needs --split family"),
        ({"file": Path("nowhere.tsv")}, "nowhere.tsv cannot be read"),
        ({"split": "cluster", "clusters": Path("nowhere.tsv")}, "nowhere.tsv cannot be read"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        divide(options(tmp_path, homologues(20, 8), **changed))
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A\tp1\nB\tp1\nA\tp2\n", "p1 is in two clusters, A and B"),
        ("A\tp1\n", "1 of 2 proteins are in no cluster, among them p2"),
        ("A p1\n", "line 1: 'A p1' is not two words"),
        ("A\tp1\tp2\n", "not two words"),
        ("", "2 of 2 proteins"),
    ],
)
def test_broken_clusters(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "clusters.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        grouped(read_pairs(path), ["p1", "p2"], "clusters.tsv")


def test_one_name_for_two_sequences_is_refused(tmp_path: Path) -> None:
    asked = options(tmp_path, {})
    asked.file.write_text(f"accession\tsequence\nA\t{'MKV' * 20}\nA\t{'MKL' * 20}\n")
    with pytest.raises(UserError, match="two sequences are called 'A'"):
        divide(asked)


def test_an_illegal_letter_names_its_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.tsv, BAD: '1' at position 4"):
        divide(options(tmp_path, {"GOOD": "MKV" * 20, "BAD": "MKV1" * 20}))


def test_unknown_families_and_sizes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="puts no protein of the corpus into a family"):
        families([("x", "F")], ["p1"], "families.tsv")
    with pytest.raises(UserError, match=r"no protein of the corpus is in it. Did you mean F1"):
        draw_groups({"F1": ["p1"]}, SIZES, 0, ["F11"])
    with pytest.raises(UserError, match="whole groups came to 0 proteins only"):
        draw_groups({"F1": [f"p{i}" for i in range(50)]}, SIZES, 0)
    with pytest.raises(UserError, match="both need at least one"):
        leak_report([], ["MKV"], 1, Path("unused"), None)


@pytest.mark.parametrize(
    "changed", [{"method": "guess"}, {"min_seq_id": 30}, {"coverage": -1}, {"sensitivity": 9}]
)
def test_flags_that_the_tool_does_not_take(changed: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(changed)).replace('_', '-')}"):
        dataclasses.replace(TOOL, **changed)


@needs_mmseqs
def test_what_the_tool_says_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ended with status"):
        list(TOOL.clusters(tmp_path / "nowhere.fasta", tmp_path))


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    write_split_list(path, {"sha256": "a" * 64, "corpus": "one.tsv"}, {"A": "valid", "B": "test"})
    read = read_split_list(str(path))
    assert [read.split_of(name) for name in "ABC"] == ["valid", "test", "train"]
    read.check_source("one.tsv", "a" * 64)
    with pytest.raises(
        UserError, match=r"not the file that its split was made for \(one.tsv, SHA-256 aaaaaaaaaaaa"
    ):
        read.check_source("two.tsv", "b" * 64)
    with pytest.raises(UserError, match="lacks 2 of the 2"):
        read_split_list(str(path)).check_used("two.tsv")
    with pytest.raises(
        UserError, match=r"no such list or file. Did you mean swissprot_sample_random"
    ):
        read_split_list("swissprot_sample_rando")
    key = accession_hash("A")
    for text, said in [
        (f"valid {key}\ntest {key}\n", "in two splits"),
        (f"valid {key}\n", "holds out nothing for"),
        (f"train {key}\n", "line 1"),
        ("valid abc\n", "line 1"),
    ]:
        path.write_text(text)
        os.utime(path, ns=(0, hash(text) % 2**40))  # lists are read once, until they change
        with pytest.raises(UserError, match=said):
            read_split_list(str(path))


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        f"--{name}={value}"
        for name, value in (("valid", 20), ("test", 20), ("min-len", 30), ("max-len", 512))
    ]
    table = write_table(tmp_path / "corpus.tsv", homologues(60, 9))
    script = runpy.run_path(str(ROOT / "experiments" / "split_proteins.py"))
    for file, status, said in [
        (table, 0, "20 valid, 20 test"),
        (table, 2, "is a finished corpus already"),
    ]:
        words = [str(file), "--split=random", *sizes, "--no-search", f"--output={tmp_path / 'out'}"]
        monkeypatch.setattr(sys, "argv", ["split_proteins.py", *words])
        assert script["main"]() == status
        assert said in "".join(capsys.readouterr())


def test_what_a_message_says_for_gaps_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path / "corpus.tsv", {"gap": "MK-V" * 9} | homologues(60, 9))
    script = runpy.run_path(str(ROOT / "experiments" / "split_proteins.py"))
    words = [str(table), "--split=random", "--valid=20", "--test=20", "--no-search"]
    words.append(f"--output={tmp_path / 'out'}")
    monkeypatch.setattr(sys, "argv", ["split_proteins.py", *words])
    assert script["main"]() == 2
    said = to_type(" ".join("".join(capsys.readouterr()).split()))
    assert said == "--gapped"
    monkeypatch.setattr(sys, "argv", ["split_proteins.py", *words, said])
    assert script["main"]() == 0

    labelled = tmp_path / "labelled.csv"
    rows = [f"MK{'-' * (n % 2)}{one}V,1" for n, one in enumerate(STANDARD)]
    labelled.write_text("\n".join(["sequence,heat", *rows]))
    named = f"protein_table:train,source.path={labelled},source.target_columns=heat"
    with pytest.raises(UserError) as refused:
        named_sequences(named)
    assert to_type(str(refused.value)) == "data.tokenizer.gapped=true"
    found = named_sequences(f"{named},{to_type(str(refused.value))}")
    assert found
    assert set(found) <= {f"MK{one}V" for one in STANDARD}
    with pytest.raises(UserError, match=r"'-' at position 3 is no residue\.$"):
        named_sequences(str(write_table(table, {"a": "MK-V"})))  # which takes no options


def to_type(message: str) -> str:
    return message.partition("For aligned sequences say ")[2].split()[0].rstrip(".")


def test_sides_are_named_as_data() -> None:
    with pytest.raises(UserError, match="Did you mean swissprot_sample"):
        named_sequences("swisprot_sample:test")
    with pytest.raises(UserError, match="has no proteins"):
        named_sequences("ptb:test")
    with pytest.raises(UserError, match="its splits are train, valid, test"):
        named_sequences("swissprot_sample:tset")
    with pytest.raises(UserError, match="splt"):
        named_sequences("swissprot_sample:test,source.splt=x")


@pytest.mark.parametrize("name", LISTS)
def test_committed_lists(name: str) -> None:
    """Their digests are in no run's config, so this is what tells that a list has changed."""
    read = read_split_list(name)
    counts = Counter(read.split_of_hash.values())
    assert counts == {split: int(read.made[split]) for split in ("valid", "test")}
    assert read.digest() == LISTS[name]


def test_committed_reports_are_of_the_committed_lists() -> None:
    for name in LISTS:
        made = read_split_list(name).made
        report = LeakReport.read(RESULTS / "leak" / f"{name}.json")
        assert (report.num_test, report.num_train) == (int(made["test"]), int(made["train"]))
        assert report.exact == 0
    ngrams = json.loads((RESULTS / "ngrams.json").read_text())["splits"]
    assert {name: ngrams[name]["list"] for name in LISTS} == LISTS


@pytest.mark.data
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_the_random_list_is_of_the_sample() -> None:
    sample = (
        Path(os.environ["LIT_SEQLM_DATA"])
        / "proteins/swissprot_go/swissprot_go_201401_sample100k.tsv.gz"
    )
    corpus = ProteinCorpus(
        "sample",
        str(sample.parent),
        sample.name,
        "swissprot_sample_random",
        None,
        30,
        512,
        "",
        seed=0,
    )
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    sequences = {split: corpus.sequences(split, tokenizer) for split in ("train", "valid", "test")}
    assert {split: len(found) for split, found in sequences.items()} == {
        "train": 71191,
        "valid": 2000,
        "test": 2000,
    }
    assert len({one for found in sequences.values() for one in found}) == 75191
    assert (
        hashlib.sha256(sample.read_bytes()).hexdigest()
        == read_split_list("swissprot_sample_random").made["sha256"]
    )


@pytest.mark.data
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_chains_of_cb513_that_netsurfp_was_trained_on() -> None:
    """Two of CB513, one of them in FLIP's validation part, and one of TS115."""
    kept = ",source.drop_test_overlaps=false"
    train, valid = (
        set(named_sequences(f"secondary_structure:{part}{kept}")) for part in ("train", "valid")
    )
    cb513, ts115 = (named_sequences(f"secondary_structure:{test}") for test in ("cb513", "ts115"))
    assert [sum(one in part for one in cb513) for part in (train, valid)] == [1, 1]
    assert [sum(one in part for one in ts115) for part in (train, valid)] == [1, 0]
