"""From rows to shards: what is kept, what is dropped and why, the same bytes every time."""

import csv
import gzip
import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem

from lit_seqlm.data.prepare import pipeline
from lit_seqlm.data.prepare.options import Options
from lit_seqlm.data.prepare.pipeline import prepare
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "prepare_corpus.py"
CHAINS = [f"{'C' * left}O{'C' * right}" for left in range(1, 31) for right in range(1, 31)]
DROPPED = {
    "": "empty",
    "c1ccc": "invalid_smiles: unclosed ring",
    "O": "too_short: 1 tokens",
    "C" * 70: "too_long: 70 tokens",
    "OCC": "repeated",  # CCO is there before
    "C1=CC=CC=C1": "repeated",
}
KEPT = ["CCO", "c1ccccc1", "C[C@H](N)O", "[NH4+].[Cl-]"]


def options_of(folder: Path, **changes: Any) -> Options:
    made = Options(
        inputs=(str(folder / "a.csv"),),
        output=folder / "corpus",
        column="smiles",
        isomeric=False,
        min_len=2,
        max_len=60,
        vocabulary=None,
        min_count=1,
        holdout=0.1,
        max_holdout=1000,
        shard_molecules=300,
        workers=1,
    )
    return replace(made, **changes)


def write_csv(path: Path, smiles: list[str]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "smiles"], *enumerate(smiles)])


def read_back(folder: Path, split: str) -> list[str]:
    source = ShardSource(str(folder))
    tokenizer = SmilesTokenizer(source.vocabulary, "error", False, 1)
    return [tokenizer.decode(ids) for ids in source.open(split, 0, 0, 0, 1)]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def dropped(folder: Path) -> list[list[str]]:
    with gzip.open(folder / "dropped.csv.gz", "rt", newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 rows of 465 ethers, and some of every kind that is dropped."""
    folder = tmp_path_factory.mktemp("prepare")
    write_csv(folder / "a.csv", [*KEPT, *DROPPED, *CHAINS])
    prepare(options_of(folder))
    return folder / "corpus"


def test_the_corpus_is_each_molecule_once(corpus: Path) -> None:
    split = {name: read_back(corpus, name) for name in ("train", "valid")}
    everything = [*split["train"], *split["valid"]]
    written = [*KEPT, *(smiles for smiles in CHAINS if len(smiles) <= 60)]
    expected = {Chem.MolToSmiles(Chem.MolFromSmiles(one), isomericSmiles=False) for one in written}
    assert (
        len(everything) == len(set(everything)) == 4 + 30 * 31 // 2 - 1
    )  # CCO is an ether too? no
    assert set(everything) == expected


def test_every_row_is_kept_or_reported(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    report = dropped(corpus)
    rows = [*KEPT, *DROPPED, *CHAINS]
    assert manifest["rows"] == len(rows)
    kept = sum(split["molecules"] for split in manifest["splits"].values())
    assert kept + len(report) == len(rows)
    assert manifest["dropped"] == dict(
        sorted(Counter(reason.partition(":")[0] for _, _, reason in report).items())
    )
    reasons = {int(row): reason for _, row, reason in report}
    assert len(reasons) == len(report)
    for place, reason in enumerate(DROPPED.values(), start=len(KEPT) + 1):
        assert reasons[place] == reason
    assert {file for file, _, _ in report} == {"a.csv"}


def test_the_first_of_equal_rows_is_kept(corpus: Path) -> None:
    rows = [*KEPT, *DROPPED, *CHAINS]
    repeated = {int(row) for _, row, reason in dropped(corpus) if reason == "repeated"}
    seen: dict[str, int] = {}
    for place, smiles in enumerate(rows, start=1):
        molecule = Chem.MolFromSmiles(smiles) if smiles != "c1ccc" else None
        if not smiles or molecule is None or len(smiles) in (1, 70):
            continue
        canonical = Chem.MolToSmiles(molecule, isomericSmiles=False)
        assert (place in repeated) == (canonical in seen)
        seen.setdefault(canonical, place)


def test_the_manifest_is_true(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    for name, said in manifest["files"].items():
        found = (corpus / name).read_bytes()
        assert said == {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
    assert {*manifest["files"], "manifest.json"} == set(content(corpus))
    source = (corpus.parent / "a.csv").read_bytes()
    assert manifest["inputs"] == [{"name": "a.csv", "sha256": hashlib.sha256(source).hexdigest()}]
    for split, said in manifest["splits"].items():
        lengths = Counter(len(ids) for ids in plain(corpus, split))
        assert {int(n): count for n, count in said["lengths"].items()} == lengths
        assert said["tokens"] == sum(n * count for n, count in lengths.items())
        assert said["molecules"] == lengths.total()
    lines = (corpus / "vocabulary.txt").read_text().splitlines()
    assert manifest["vocabulary"]["size"] == len(lines)
    counts = json.loads((corpus / "token_counts.json").read_text())
    assert lines[4 : 4 + len(counts)] == list(counts)
    assert str(corpus.parent) not in (corpus / "manifest.json").read_text()


def plain(corpus: Path, split: str) -> list[np.ndarray]:
    return list(ShardSource(str(corpus)).open(split, 0, 0, 0, 1))


class TestSameBytes:
    def test_shards_do_not_depend_on_the_order_of_the_input(
        self, corpus: Path, tmp_path: Path
    ) -> None:
        rows = [*KEPT, *DROPPED, *CHAINS]
        random.Random(0).shuffle(rows)
        write_csv(tmp_path / "a.csv", rows[:300])
        write_csv(tmp_path / "b.csv", rows[300:])
        prepare(options_of(tmp_path, inputs=(str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))))
        once, again = content(corpus), content(tmp_path / "corpus")
        for files in (once, again):
            del files["dropped.csv.gz"], files["manifest.json"]
        assert once == again

    def test_a_second_run_gives_the_same(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes((corpus.parent / "a.csv").read_bytes())
        prepare(options_of(tmp_path))
        assert content(corpus) == content(tmp_path / "corpus")

    @pytest.mark.slow
    def test_three_processes_give_the_same(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lit_seqlm.data.prepare.inputs.CHUNK", 17)
        (tmp_path / "a.csv").write_bytes((corpus.parent / "a.csv").read_bytes())
        prepare(options_of(tmp_path, workers=3))
        assert content(corpus) == content(tmp_path / "corpus")


def test_the_order_has_nothing_of_the_input(corpus: Path) -> None:
    train = read_back(corpus, "train")
    lengths = np.array([len(smiles) for smiles in train])
    rank = np.corrcoef(np.arange(len(lengths)), lengths)[0, 1]
    assert abs(rank) < 4 / np.sqrt(len(lengths))


class TestHeldOut:
    def test_no_molecule_changes_sides_when_the_corpus_grows(
        self, corpus: Path, tmp_path: Path
    ) -> None:
        write_csv(tmp_path / "a.csv", CHAINS[:400])
        prepare(options_of(tmp_path))
        small = {name: set(read_back(tmp_path / "corpus", name)) for name in ("train", "valid")}
        large = {name: set(read_back(corpus, name)) for name in ("train", "valid")}
        assert small["valid"] < large["valid"]
        assert small["train"] < large["train"]

    def test_the_share_is_kept_and_bounded(self, corpus: Path, tmp_path: Path) -> None:
        held_out = read_back(corpus, "valid")
        total = len(held_out) + len(read_back(corpus, "train"))
        assert len(held_out) == pytest.approx(0.1 * total, abs=4 * np.sqrt(0.09 * total))
        write_csv(tmp_path / "a.csv", CHAINS)
        prepare(options_of(tmp_path, max_holdout=7))
        assert len(read_back(tmp_path / "corpus", "valid")) == 7

    def test_none_is_possible(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", KEPT)
        manifest = prepare(options_of(tmp_path, holdout=0.0))
        assert manifest["splits"]["valid"]["molecules"] == 0
        assert read_back(tmp_path / "corpus", "valid") == []
        assert len(read_back(tmp_path / "corpus", "train")) == 4


class TestVocabulary:
    def test_molecules_outside_a_given_one_are_reported(self, tmp_path: Path) -> None:
        (tmp_path / "v.txt").write_text("<bos>\n<eos>\n<pad>\n<mask>\nO\nC\n<unk>\n")
        write_csv(tmp_path / "a.csv", [*KEPT, "CC"])
        options = options_of(tmp_path, vocabulary=str(tmp_path / "v.txt"), holdout=0.0)
        manifest = prepare(options)
        assert sorted(read_back(options.output, "train")) == ["CC", "CCO"]
        assert manifest["dropped"] == {"unknown_tokens": 3}
        assert {int(row): reason for _, row, reason in dropped(options.output)} == {
            2: "unknown_tokens: c 1",
            3: "unknown_tokens: ( N )",
            4: "unknown_tokens: [Cl-] . [NH4+]",
        }
        assert (options.output / "vocabulary.txt").read_bytes() == (tmp_path / "v.txt").read_bytes()

    def test_molecules_with_a_rare_token_are_reported(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", ["C[SeH]", "C[TeH]", "CC[TeH]"])
        manifest = prepare(options_of(tmp_path, min_count=2, holdout=0.0))
        assert manifest["dropped"] == {"unknown_tokens": 1}
        assert len(read_back(tmp_path / "corpus", "train")) == 2

    def test_a_second_corpus_of_one_process_has_its_own(self, tmp_path: Path) -> None:
        for smiles in (["CCO", "CCCO"], ["NOON", "NOOON"]):
            write_csv(tmp_path / "a.csv", smiles)
            prepare(options_of(tmp_path, holdout=0.0))
            assert set(read_back(tmp_path / "corpus", "train")) == {
                Chem.CanonSmiles(one) for one in smiles
            }
            shutil.rmtree(tmp_path / "corpus")

    def test_stereo_marks(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", ["C[C@H](N)O", "C[C@@H](N)O"])
        prepare(options_of(tmp_path, isomeric=True, holdout=0.0))
        assert len(read_back(tmp_path / "corpus", "train")) == 2
        assert ShardSource(str(tmp_path / "corpus")).isomeric


class TestWholeOrNothing:
    @pytest.mark.parametrize("step", ["write_split", "encode"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
    def test_a_stop_leaves_nothing(
        self, tmp_path: Path, step: str, error: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: Any, **__: Any) -> None:
            raise error

        write_csv(tmp_path / "a.csv", KEPT)
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, step, stop)
            with pytest.raises((KeyboardInterrupt, UserError)) as raised:
                prepare(options_of(tmp_path))
        assert "No space left" in str(raised.value) or raised.type is KeyboardInterrupt
        assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
        prepare(options_of(tmp_path))

    def test_what_a_killed_process_left_is_removed(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", KEPT)
        left = tmp_path / f".corpus.{ended_process()}"
        (left / "work").mkdir(parents=True)
        other = tmp_path / ".corpus.old"
        other.mkdir()
        prepare(options_of(tmp_path))
        assert not left.exists()
        assert other.exists()  # not ours

    def test_another_process_is_not_disturbed(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", KEPT)
        (tmp_path / f".corpus.{os.getppid()}").mkdir()
        with pytest.raises(UserError, match=f"process {os.getppid()} is making"):
            prepare(options_of(tmp_path))

    def test_what_is_there_is_not_overwritten(self, corpus: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is a finished corpus already"):
            prepare(options_of(corpus.parent))
        write_csv(tmp_path / "a.csv", KEPT)
        (tmp_path / "corpus").mkdir()
        with pytest.raises(UserError, match="is no corpus"):
            prepare(options_of(tmp_path))

    @pytest.mark.slow
    def test_killed_in_the_middle(self, tmp_path: Path) -> None:
        write_csv(tmp_path / "a.csv", CHAINS * 100)
        command = [sys.executable, str(SCRIPT), str(tmp_path / "a.csv"), "--output"]
        command += [str(tmp_path / "corpus"), "--workers", "1"]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        left = tmp_path / f".corpus.{process.pid}"
        deadline = time.monotonic() + 60
        while not (left / "dropped.csv.gz").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left.exists()
        assert not (tmp_path / "corpus").exists()
        write_csv(tmp_path / "a.csv", CHAINS)
        prepare(options_of(tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "corpus"]


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"column": "smile"}, "no column 'smile'.*Did you mean smiles"),
        ({"max_len": 1}, "--max-len 1: it must be 2 or more"),
        ({"max_len": 2**16 - 2}, "--max-len 65534: it must be 2 or more, and 65,533 at most"),
        ({"holdout": 1.0}, "--holdout 1.0"),
        ({"workers": 0}, "--workers 0"),
        ({"shard_molecules": 0}, "--shard-molecules 0"),
        ({"inputs": ("-", "-")}, "read once"),
        ({"inputs": ("none.csv",)}, "none.csv cannot be read"),
        ({"vocabulary": "none.txt"}, "none.txt: cannot be read"),
        ({"min_len": 59}, "no molecule is left of 4 rows: 4 too_short"),
        ({"holdout": 0.9999999}, "left to train on.*4 held out"),
    ],
)
def test_what_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_csv(tmp_path / "a.csv", KEPT)
    with pytest.raises(UserError, match=message):
        prepare(options_of(tmp_path, **changes))
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("prepare_corpus", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    (tmp_path / "a.smi").write_text("".join(f"{smiles} x\n" for smiles in [*KEPT, "c1ccc"]))
    arguments = ["prepare_corpus.py", str(tmp_path / "a.smi"), "--output", str(tmp_path / "corpus")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--workers", "1", "--holdout", "0"])
    assert command.main() == 0
    said = capsys.readouterr().out
    assert "4 molecules to train on, 0 held out, of 5 rows" in said
    assert "dropped 1 invalid_smiles (20.00 %)" in said
    assert command.main() == 2
    assert "finished corpus already" in capsys.readouterr().err
