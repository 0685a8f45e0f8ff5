"""From rows of proteins to shards: what is kept and dropped, by name; held out by hash, by cluster, by a list."""

import csv
import gzip
import hashlib
import importlib.util
import json
import os
import random
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lit_seqlm.data.prepare.options import ProteinOptions
from lit_seqlm.data.prepare.partitions import partition_of
from lit_seqlm.data.prepare.pieces import count_bytes
from lit_seqlm.data.prepare.pipeline import prepare
from lit_seqlm.data.proteins.corpus import ProteinCorpus
from lit_seqlm.data.proteins.split_lists import write_split_list
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import RESIDUES, VOCABULARY, AminoAcidTokenizer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "prepare_corpus.py"
SPLITS = ("train", "valid", "test")
DROPPED = {
    "empty": ("", "empty"),
    "star": ("*", "empty"),
    "digit": ("MK1V", "illegal: '1' at position 3 is no residue"),
    "gap": ("MK-V", "illegal: '-' at position 3 is no residue"),
    "short": ("M", "too_short: 1 residues"),
    "long": ("MKV" * 14, "too_long: 42 residues"),
    "again": ("mkvl", "repeated"),
}  # fmt: skip
KEPT = {"first": "MKVL", "starred": "MKVLA*", "soft": "MKVLaa", "j": "MJV", "rare": "BZUOX"}


def drawn(number: int, longest: int = 40, seed: int = 0) -> dict[str, str]:
    chance = random.Random(seed)
    lengths = [chance.randint(5, longest) for _ in range(number)]
    return {f"P{i:05d}": "".join(chance.choices("ACDEFGHIKL", k=n)) for i, n in enumerate(lengths)}


def options_of(folder: Path, **changes: Any) -> ProteinOptions:
    made = ProteinOptions(
        inputs=(str(folder / "a.tsv"),),
        output=folder / "corpus",
        min_len=2,
        max_len=40,
        column=None,
        over_long="drop",
        ends="cls",
        ambiguous="keep",
        gapped=False,
        holdout=0.2,
        max_holdout=1000,
        clusters=None,
        split=None,
        shard_proteins=300,
        workers=1,
    )
    return replace(made, **changes)


def write_table(path: Path, proteins: dict[str, str]) -> None:
    with path.open("w", newline="") as file:
        rows = [["accession", "sequence"], *proteins.items()]
        csv.writer(file, delimiter="\t").writerows(rows)


def read_back(folder: Path) -> dict[str, list[str]]:
    source, tokenizer = ShardSource(str(folder)), AminoAcidTokenizer("cls", "keep", False)
    return {
        split: [tokenizer.decode(ids) for ids in source.open(split, 0, 0, 0, 1)] for split in SPLITS
    }


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def dropped(folder: Path) -> list[dict[str, str]]:
    with gzip.open(folder / "dropped.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def few_partitions() -> Iterator[None]:
    """Sixteen, for fewer files: what comes out does not depend on it."""
    with pytest.MonkeyPatch.context() as patched:
        name = "lit_seqlm.data.prepare.partitions.partition_of"
        patched.setattr(name, lambda keys_N: (keys_N["hash"] >> np.uint64(60)).astype(np.int64))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepare")
    proteins = {**KEPT, **{name: text for name, (text, _) in DROPPED.items()}, **drawn(900)}
    write_table(folder / "a.tsv", proteins)
    prepare(options_of(folder))
    return folder / "corpus"


def test_the_corpus_is_each_protein_once_and_clean(corpus: Path) -> None:
    found = [one for split in read_back(corpus).values() for one in split]
    expected = {"MKVL", "MKVLA", "MKVLAA", "MXV", "BZUOX", *drawn(900).values()}
    assert len(found) == len(expected)
    assert set(found) == expected


def test_every_row_is_kept_or_reported_by_name(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    report = {line["name"]: line for line in dropped(corpus)}
    assert {name: line["reason"] for name, line in report.items()} == {
        name: reason for name, (_, reason) in DROPPED.items()
    }
    for place, name in enumerate(DROPPED, start=len(KEPT) + 1):
        assert (report[name]["file"], report[name]["row"]) == ("a.tsv", str(place))
    kept = sum(split["proteins"] for split in manifest["splits"].values())
    assert kept + len(report) == manifest["rows"] == 900 + len(KEPT) + len(DROPPED)
    assert manifest["dropped"] == {"empty": 2, "illegal": 2, "repeated": 1, "too_long": 1, "too_short": 1}  # fmt: skip
    assert manifest["changed"] == {"lower_case": 2}


def test_the_manifest_is_true(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    for name, said in manifest["files"].items():
        found = (corpus / name).read_bytes()
        assert said == {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    assert manifest["kind"] == "protein"
    assert manifest["tokenizer"] == {"ends": "cls", "ambiguous": "keep", "gapped": False}
    vocabulary = (corpus / "vocabulary.txt").read_bytes()
    assert vocabulary.decode().splitlines() == VOCABULARY
    assert manifest["vocabulary"]["sha256"] == hashlib.sha256(vocabulary).hexdigest()
    counts = Counter(letter for split in read_back(corpus).values() for s in split for letter in s)
    assert json.loads((corpus / "token_counts.json").read_text()) == counts
    source = ShardSource(str(corpus))
    for split, said in manifest["splits"].items():
        lengths = Counter(len(ids) for ids in source.open(split, 0, 0, 0, 1))
        assert source.lengths(split) == lengths
        assert said["proteins"] == lengths.total()
        assert said["tokens"] == sum(n * count for n, count in lengths.items())


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_depend_on_the_set_alone(
    corpus: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files, another order, 256 partitions."""
    monkeypatch.setattr("lit_seqlm.data.prepare.partitions.partition_of", partition_of)
    proteins = {**KEPT, **{name: text for name, (text, _) in DROPPED.items()}, **drawn(900)}
    names = list(proteins)
    random.Random(1).shuffle(names)
    for file, some in (("a.tsv", names[:500]), ("b.tsv", names[500:])):
        write_table(tmp_path / file, {name: proteins[name] for name in some})
    inputs = (str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv"))
    prepare(options_of(tmp_path, inputs=inputs, workers=workers))
    once, again = content(corpus), content(tmp_path / "corpus")
    for files in (once, again):
        del files["dropped.csv.gz"], files["manifest.json"]
    assert once == again


@pytest.mark.parametrize(
    ("changes", "kept", "reasons"),
    [
        ({}, ["BZUOX", "MKVL", "MXV"], {"illegal": 1, "too_long": 1}),
        ({"over_long": "truncate"}, ["BZUOX", "MKVL", "MKVMKVM", "MXV"], {"illegal": 1}),
        ({"ambiguous": "to_x"}, ["MKVL", "MXV", "XXXXX"], {"illegal": 1, "too_long": 1}),
        ({"ambiguous": "drop"}, ["MKVL"], {"ambiguous": 2, "illegal": 1, "too_long": 1}),
        ({"gapped": True}, ["BZUOX", "MKV", "MKVL", "MXV"], {"too_long": 1}),
        ({"min_len": 4}, ["BZUOX", "MKVL"], {"illegal": 1, "too_long": 1, "too_short": 1}),
    ],
)
def test_policies(
    tmp_path: Path, changes: dict[str, Any], kept: list[str], reasons: dict[str, int]
) -> None:
    proteins = {"a": "MKVL", "b": "BZUOX", "c": "MJV", "d": "MK-V", "e": "MKV" * 3}
    write_table(tmp_path / "a.tsv", proteins)
    manifest = prepare(options_of(tmp_path, **{"holdout": 0.0, "max_len": 7, **changes}))
    assert sorted(read_back(tmp_path / "corpus")["train"]) == kept
    assert manifest["dropped"] == reasons
    truncates = changes.get("over_long") == "truncate"
    assert manifest.get("changed", {}) == ({"truncated": 1} if truncates else {})


def test_truncated_ones_may_be_equal(tmp_path: Path) -> None:
    write_table(tmp_path / "a.tsv", {"a": "MKVLA", "b": "MKVLC", "c": "AAA"})
    manifest = prepare(options_of(tmp_path, holdout=0.0, max_len=4, over_long="truncate"))
    assert manifest["dropped"] == {"repeated": 1}
    assert dropped(tmp_path / "corpus")[0]["name"] == "b"


class TestHeldOutByHash:
    def test_two_splits_of_about_half_the_share(self, corpus: Path) -> None:
        sizes = {split: len(found) for split, found in read_back(corpus).items()}
        total = sum(sizes.values())
        for split in ("valid", "test"):
            assert sizes[split] == pytest.approx(0.1 * total, abs=4 * np.sqrt(0.09 * total))

    def test_no_protein_changes_sides_when_the_corpus_grows(
        self, corpus: Path, tmp_path: Path
    ) -> None:
        write_table(tmp_path / "a.tsv", dict(list(drawn(900).items())[:300]))
        prepare(options_of(tmp_path))
        small, large = read_back(tmp_path / "corpus"), read_back(corpus)
        for split in SPLITS:
            assert small[split]
            assert set(small[split]) < set(large[split])

    def test_the_number_is_bounded(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.tsv", drawn(900))
        prepare(options_of(tmp_path, max_holdout=20))
        found = read_back(tmp_path / "corpus")
        assert len(found["valid"]) + len(found["test"]) == 20
        assert found["valid"]
        assert found["test"]


class TestHeldOutByCluster:
    @pytest.fixture
    def clusters(self, tmp_path: Path) -> dict[str, str]:
        """Of each protein its cluster: a hundred of one to twenty members."""
        chance = random.Random(3)
        cluster_of = {name: f"C{min(99, int(chance.expovariate(0.05)))}" for name in drawn(900)}
        lines = sorted(f"{cluster}\t{name}\n" for name, cluster in cluster_of.items())
        (tmp_path / "c.tsv").write_text("".join(lines))
        return cluster_of

    @pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_no_cluster_is_in_two_splits(
        self, tmp_path: Path, clusters: dict[str, str], workers: int
    ) -> None:
        write_table(tmp_path / "a.tsv", drawn(900))
        manifest = prepare(options_of(tmp_path, clusters=str(tmp_path / "c.tsv"), workers=workers))
        name_of = {sequence: name for name, sequence in drawn(900).items()}
        where = defaultdict(set)
        for split, sequences in read_back(tmp_path / "corpus").items():
            assert sequences, split
            for sequence in sequences:
                where[clusters[name_of[sequence]]].add(split)
        assert set(map(len, where.values())) == {1}
        digest = hashlib.sha256((tmp_path / "c.tsv").read_bytes()).hexdigest()
        assert manifest["holdout"]["clusters"] == "c.tsv"
        assert manifest["holdout"]["sha256"] == digest

    def test_whole_clusters_stay_below_the_bound(
        self, tmp_path: Path, clusters: dict[str, str]
    ) -> None:
        write_table(tmp_path / "a.tsv", drawn(900))
        prepare(options_of(tmp_path, clusters=str(tmp_path / "c.tsv"), max_holdout=60))
        held = {s for split in ("valid", "test") for s in read_back(tmp_path / "corpus")[split]}
        names = {name for name, sequence in drawn(900).items() if sequence in held}
        assert 0 < len(names) <= 60
        members = {name for name in clusters if clusters[name] in {clusters[one] for one in names}}
        assert names == members

    def test_a_second_corpus_of_one_process_has_its_own(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.tsv", drawn(40))
        valid = []
        for seed in (0, 1):
            clusters = [f"{seed}{name}\t{name}\n" for name in drawn(40)]
            (tmp_path / "c.tsv").write_text("".join(clusters))
            prepare(options_of(tmp_path, clusters=str(tmp_path / "c.tsv"), holdout=0.5))
            valid.append(read_back(tmp_path / "corpus")["valid"])
            shutil.rmtree(tmp_path / "corpus")
        assert valid[0] != valid[1]

    def test_equal_proteins_of_two_clusters_are_held_out_if_one_is(self, tmp_path: Path) -> None:
        proteins = drawn(300)
        twins = {f"Q{name}": sequence for name, sequence in proteins.items()}
        write_table(tmp_path / "a.tsv", {**proteins, **twins})
        lines = [f"{name}\t{name}\n" for name in (*proteins, *twins)]
        (tmp_path / "c.tsv").write_text("".join(lines))
        prepare(options_of(tmp_path, clusters=str(tmp_path / "c.tsv")))
        found = read_back(tmp_path / "corpus")
        assert sum(map(len, found.values())) == len(set(proteins.values()))
        # Each is held out by either of its names: 1 - 0.8^2.
        share = (len(found["valid"]) + len(found["test"])) / 300
        assert share == pytest.approx(0.36, abs=4 * np.sqrt(0.36 * 0.64 / 300))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("C1\tP00000\n", "P00001 is in no cluster"),
            ("C1 P00000\n", r"line 1: 'C1 P00000' is not a cluster's name, a tab"),
            ("C1\tP00000\nC1\tP00000\tx\n", "line 2"),
            ("C1\tP00000\nC2\tP00000\nC2\tP00001\n", "P00000 is in two clusters, C1 and C2"),
            ("", "is empty"),
            (None, "there is no such file"),
        ],
    )
    def test_broken_files(self, tmp_path: Path, text: str | None, message: str) -> None:
        write_table(tmp_path / "a.tsv", drawn(2))
        if text is not None:
            (tmp_path / "c.tsv").write_text(text)
        with pytest.raises(UserError, match=message):
            prepare(options_of(tmp_path, clusters=str(tmp_path / "c.tsv")))
        assert not (tmp_path / "corpus").exists()


class TestHeldOutByList:
    def test_what_the_list_names(self, tmp_path: Path) -> None:
        proteins = {**drawn(300), "TWIN": drawn(300)["P00007"]}
        write_table(tmp_path / "a.tsv", proteins)
        held_out = {"P00007": "valid", "P00008": "test", "P00100": "test"}
        write_split_list(tmp_path / "list.txt", {"made": "by hand"}, held_out)
        prepare(options_of(tmp_path, split=str(tmp_path / "list.txt")))
        found = read_back(tmp_path / "corpus")
        assert found["valid"] == [proteins["P00007"]], "its twin is not trained on"
        assert set(found["test"]) == {proteins["P00008"], proteins["P00100"]}
        assert len(found["train"]) == 297
        assert dropped(tmp_path / "corpus")[0]["name"] == "TWIN"

    def test_a_list_of_another_corpus(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.tsv", drawn(30))
        write_split_list(tmp_path / "list.txt", {}, {"P00007": "valid", "Q1": "test"})
        with pytest.raises(UserError, match=r"a\.tsv lacks 1 of the 2 proteins"):
            prepare(options_of(tmp_path, split=str(tmp_path / "list.txt")))
        assert not (tmp_path / "corpus").exists()

    def test_another_file_than_the_lists(self, tmp_path: Path) -> None:
        """One that has all that is held out, and one protein more: a relative, for all that anybody knows."""
        options = self.made_for(tmp_path, drawn(30))
        prepare(options)
        shutil.rmtree(options.output)
        write_table(tmp_path / "a.tsv", {**drawn(30), "NEW": "MKVLA"})
        with pytest.raises(UserError, match=r"a\.tsv is not the file that its split was made for"):
            prepare(options)
        assert not options.output.exists()

    def test_more_files_than_the_lists(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, more = str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")
        write_table(Path(more), drawn(30, seed=1))
        options = replace(self.made_for(tmp_path, drawn(30)), inputs=(one, more))
        with pytest.raises(UserError, match=r"made for one file.*these are 2: a\.tsv, b\.tsv"):
            prepare(options)
        write_split_list(tmp_path / "list.txt", {}, self.held_out)
        prepare(options)
        assert "among the others of a.tsv, b.tsv" in caplog.text

    @pytest.mark.parametrize(
        ("made", "changes", "message"),
        [
            (
                {"max_len": 40},
                {"max_len": 50},
                r"--max-len 50: .* for max_len=40.*Say --max-len 40",
            ),
            ({"min_len": 5}, {}, r"--min-len 2: .* for min_len=5.*Say --min-len 5\."),
            ({"max_len": 40}, {"over_long": "truncate"}, "--over-long truncate.*--over-long drop"),
            ({"min_len": 2, "max_len": None}, {"max_len": 20, "over_long": "truncate"}, None),
            ({"min_len": 2, "max_len": 40}, {}, None),
        ],
    )
    def test_other_lengths_than_the_lists(
        self, tmp_path: Path, made: dict[str, Any], changes: dict[str, Any], message: str | None
    ) -> None:
        options = replace(self.made_for(tmp_path, drawn(30), **made), **changes)
        if message is None:
            assert prepare(options)["rows"] == 30
            return
        with pytest.raises(UserError, match=message):
            prepare(options)
        assert not options.output.exists()

    held_out: ClassVar = {"P00007": "valid", "P00008": "test"}

    def made_for(self, folder: Path, proteins: dict[str, str], **made: Any) -> ProteinOptions:
        """Options with a list that was made for the very file of these proteins."""
        write_table(folder / "a.tsv", proteins)
        made["sha256"] = hashlib.sha256((folder / "a.tsv").read_bytes()).hexdigest()
        write_split_list(folder / "list.txt", made, self.held_out)
        return options_of(folder, split=str(folder / "list.txt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"over_long": "cut"}, "--over-long cut: choose drop or truncate"),
        ({"ambiguous": "x"}, "ambiguous=x: choose keep, to_x, drop"),
        ({"ends": "both"}, "ends=both"),
        ({"shard_proteins": 0}, "--shard-proteins 0"),
        ({"clusters": "a", "split": "b"}, "Give one of them"),
        ({"split": "nothing"}, "there is no such list or file"),
        ({"holdout": 1.0}, "--holdout 1.0"),
        ({"inputs": ("none.tsv",)}, "none.tsv"),
        ({"inputs": ("none.bam",)}, r"none.bam: proteins are read from \.fasta"),
        ({"column": "residues"}, "no column 'residues'"),
        ({"min_len": 39}, "no protein is left of 2 rows: 2 too_short"),
    ],
)
def test_what_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_table(tmp_path / "a.tsv", {"a": "MKVL", "b": "MKV"})
    with pytest.raises(UserError, match=message):
        prepare(options_of(tmp_path, **changes))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def as_fasta(proteins: dict[str, str]) -> str:
    return "".join(
        f">sp|{name}|X_Y some words\n{one[:7]}\n{one[7:]}\n" for name, one in proteins.items()
    )


def as_flat_file(proteins: dict[str, str]) -> str:
    return "".join(
        f"ID   X_Y  Reviewed;  {len(one)} AA.\nAC   {name};\nSQ   SEQUENCE   {len(one)} AA;\n     {one}\n//\n"
        for name, one in proteins.items()
    )


def as_json_lines(proteins: dict[str, str]) -> str:
    return "".join(
        json.dumps({"id": name, "sequence": one}) + "\n" for name, one in proteins.items()
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.fasta", as_fasta),
        ("a.fa.gz", as_fasta),
        ("a.dat", as_flat_file),
        ("a.jsonl", as_json_lines),
    ],
)
def test_one_corpus_of_any_file(corpus: Path, tmp_path: Path, name: str, write: Any) -> None:
    """The same shards; and about as many rows were expected as came."""
    text = write(
        {**{one: KEPT[one] for one in ("first", "starred", "soft", "j", "rare")}, **drawn(900)}
    )
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    manifest = prepare(options_of(tmp_path, inputs=(str(path),)))
    for part in ("train", "valid", "test"):
        for file in (corpus / part).iterdir():
            assert (tmp_path / "corpus" / part / file.name).read_bytes() == file.read_bytes()
    kind = options_of(tmp_path).kind
    assert kind.num_rows(str(path)) == manifest["rows"] == 905
    assert kind.files(str(path)) == [str(path)]


def test_broken_fasta_is_refused_with_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    for text, message in ((">a\nMKV\n>\nMKV\n", "line 3"), ("MKV\n", "line 1"), ("", "no record")):
        (tmp_path / "a.fasta").write_text(text)
        with pytest.raises(UserError, match=message):
            prepare(options_of(tmp_path, inputs=(str(tmp_path / "a.fasta"),)))
        assert not (tmp_path / "corpus").exists()


def test_an_empty_record_of_fasta_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">a\nMKV\n>hollow\n>b\nMKL\n")
    prepare(options_of(tmp_path, inputs=(str(tmp_path / "a.fasta"),), holdout=0.0))
    (line,) = dropped(tmp_path / "corpus")
    assert line == {"file": "a.fasta", "row": "2", "name": "hollow", "reason": "empty"}


def test_a_data_base_is_all_its_files(tmp_path: Path) -> None:
    kind = options_of(tmp_path).kind
    for name in (
        "db.pin",
        "db.psq",
        "db.phr",
        "other.psq",
        "pfam.lmdb/data.mdb",
        "pfam.lmdb/lock.mdb",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    three = [str(tmp_path / name) for name in ("db.phr", "db.pin", "db.psq")]
    assert kind.files(str(tmp_path / "db")) == kind.files(str(tmp_path / "db.pin")) == three
    assert kind.files(str(tmp_path / "pfam.lmdb")) == [str(tmp_path / "pfam.lmdb" / "data.mdb")]
    assert kind.num_rows(str(tmp_path / "db")) is None


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_signs_are_counted_over_the_edges_of_pieces(
    tmp_path: Path, piece: int, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_seqlm.data.prepare.pieces.PIECE", piece)
    text = b"ID a\n//\nID b\n/\n//\nx//\n//\n"
    path = tmp_path / ("a.dat.gz" if zipped else "a.dat")
    path.write_bytes(gzip.compress(text) if zipped else text)
    assert count_bytes(str(path), b"\n//") == text.count(b"\n//") == 3


def test_letters_are_counted_as_the_tokenizer_does(tmp_path: Path) -> None:
    kind = options_of(tmp_path).kind
    texts = ["MKVXX", RESIDUES, "A"]
    assert kind.count(texts) == kind.tokenizer("").count(texts)
    assert kind.count([]) == Counter()


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    spec = importlib.util.spec_from_file_location("prepare_corpus", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["prepare_corpus.py", *words])
    return module.main()


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "a.tsv", {"a": "MKVLA", "b": "MKVL", "c": "MK1", "d": "MKV" * 800})
    words = [str(tmp_path / "a.tsv"), "--kind", "protein", "--output", str(tmp_path / "corpus")]
    words += ["--workers", "1", "--over-long", "truncate"]
    assert command(monkeypatch, *words, "--holdout", "0") == 0
    said = capsys.readouterr().out
    assert "3 proteins to train on, 0 held out, of 4 rows; 2,187 tokens, vocabulary 32" in said
    assert "dropped 1 illegal (25.00 %)" in said
    assert "changed 1 truncated (25.00 %)" in said
    assert command(monkeypatch, *words, "--split", "x", "--holdout", "0.1") == 2
    assert "Give one of them" in capsys.readouterr().err


def test_options_of_the_other_kind_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--kind", "protein", "--isomeric"], ["--clusters", "c.tsv"], ["--kind", "rna"]):
        with pytest.raises(SystemExit):
            command(monkeypatch, "a.tsv", "--output", "corpus", *words)
        assert words[-1] in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_swissprot_in_shards_is_swissprot_in_memory(tmp_path: Path) -> None:
    """The same three splits by the same list: two programs that share the cleaning only."""
    path = "proteins/swissprot_go/swissprot_go_201401_sample100k.tsv.gz"
    split, data_dir = "swissprot_sample_cluster", os.environ["LIT_SEQLM_DATA"]
    corpus = ProteinCorpus("sample", data_dir, path, split, None, 30, 512, "", 0)
    limits = {"min_len": 30, "max_len": 512, "shard_proteins": 2**15}
    prepare(options_of(tmp_path, inputs=(str(Path(data_dir, path)),), split=split, **limits))
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    for name, found in read_back(tmp_path / "corpus").items():
        assert sorted(found) == sorted(corpus.sequences(name, tokenizer))
