"""Rows of a file in windows, and files of answers: order, place, statuses, and nothing half written."""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lit_seqlm.data.input_rows import InputRow, Tally
from lit_seqlm.data.molecule_rows import molecule_rows
from lit_seqlm.data.row_files import row_file
from lit_seqlm.data.row_places import check_places, described, unchanged
from lit_seqlm.data.row_windows import read_windows
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

ENDINGS = [".csv", ".csv.gz", ".parquet", ".npy", ".npz"]


def tokenizer(unknown: str) -> SmilesTokenizer:
    made = SmilesTokenizer(None, unknown, False, 1)
    made.fit(made.count(["CCO", "C1CCCCC1", "C=N", "c(c)c"]))
    return made


def row(number: int, sequence: str | None) -> InputRow:
    return InputRow(number, str(sequence), sequence, "ok" if sequence else "empty", "")


def random_rows(count: int) -> list[InputRow]:
    lengths = np.random.default_rng(0).integers(1, 30, count)
    return [
        row(number, "C" * int(length) if number % 7 else None)
        for number, length in enumerate(lengths, start=1)
    ]


@pytest.mark.parametrize("size", [1, 13, 1000])
@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_windows_hold_every_row_once_and_batches_one_length(size: int, budget: int) -> None:
    rows = random_rows(100)
    windows = list(read_windows(rows, tokenizer("error"), None, size))
    assert [one for window in windows for one in window.rows] == rows
    for window in windows:
        seen: list[int] = []
        for indices, tokens in window.batches(budget):
            assert tokens.numel() <= budget or len(indices) == 1
            for index, ids in zip(indices, tokens, strict=True):
                sequence = window.rows[window.places_N[index]].sequence
                assert tokenizer("error").decode(ids.tolist()) == sequence, "no padding"
            seen += indices.tolist()
        assert sorted(seen) == list(range(sum(one.status == "ok" for one in window.rows)))


def test_a_window_is_read_only_when_it_is_asked_for() -> None:
    """So memory is that of a window, however long the file."""
    taken = []

    def endless() -> Iterator[InputRow]:
        while True:
            taken.append(1)
            yield row(len(taken), "CC")

    windows = read_windows(endless(), tokenizer("error"), None, 10)
    for count in (10, 20, 30):
        next(windows)
        assert len(taken) == count


def test_statuses_of_what_the_tokenizer_refuses() -> None:
    rows = [row(1, "CCO"), row(2, "C%(100)C"), row(3, "CCCCCC"), row(4, "C[U]"), row(5, None)]
    (window,) = read_windows(rows, tokenizer("error"), 6, 10)
    assert [one.status for one in window.rows] == ["ok", "lossy", "too_long", "unknown_tokens", "empty"]  # fmt: skip
    assert window.rows[2].reason == "6 tokens, of at most 4"
    assert window.rows[3].reason == "[U]"
    assert window.sequences == ["CCO"]
    (window,) = read_windows(rows[3:4], tokenizer("unk"), 6, 10)
    assert (window.rows[0].status, window.rows[0].reason) == ("ok", "unknown_tokens: 1")


def test_molecules_are_canonical_or_say_why_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("name,smiles\na,OCC\nb,C1CC\nc,\nd,C[C@H](N)O\n")
    rows = list(molecule_rows(str(path), None, isomeric=False))
    assert [one.sequence for one in rows] == ["CCO", None, None, "CC(N)O"]
    assert [one.status for one in rows] == ["ok", "invalid_smiles", "empty", "ok"]
    assert [one.written for one in rows] == ["OCC", "C1CC", "", "C[C@H](N)O"]
    assert [one.number for one in rows] == [1, 2, 3, 4]
    assert "@" in str(list(molecule_rows(str(path), None, isomeric=True))[3].sequence)


def test_the_tally_names_the_first_bad_rows() -> None:
    tally = Tally()
    tally.add([row(1, "C"), *(row(n, "C").refused("lossy", "why") for n in range(2, 7))])
    tally.add([row(7, "C").noted("unknown_tokens: 3")])
    assert tally.numbers() == {"rows/ok": 2, "rows/lossy": 5, "rows/not_ok": 5}
    assert tally.told() == (
        "7 rows, 2 ok (1 of them with unknown tokens), 5 lossy "
        "(row 2: lossy: why; row 3: lossy: why; row 4: lossy: why; ...)"
    )
    tally = Tally()
    tally.add([InputRow(2, "M1", None, "illegal", "'1' at position 2", "P12345")])
    assert tally.told() == "1 rows, 0 ok, 1 illegal (row 2 (P12345): illegal: '1' at position 2)"


def answers(path: Path, dtype: str, parts: int) -> tuple[list[InputRow], np.ndarray]:
    """Twelve rows with their numbers, written in some windows."""
    rows = [InputRow(n, f'a "{n}",\nb', None, "ok", "") for n in range(1, 13)]
    values = np.random.default_rng(1).normal(size=(12, 3)).astype(dtype)
    values[4] = np.nan
    vector = "embedding" if dtype == "float32" else ""
    with row_file(path, ["a", "b", "c"], vector, dtype) as file:
        for places in np.array_split(np.arange(12), parts):
            file.write([rows[place] for place in places], values[places])
            assert not path.exists(), "it appears at the end"
    return rows, values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_again_exactly(tmp_path: Path, ending: str, dtype: str) -> None:
    if dtype == "float64" and ending.startswith(".np"):
        pytest.skip("arrays are for vectors")
    path = tmp_path / f"out{ending}"
    rows, values = answers(path, dtype, parts=5)
    if ending == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(path).to_pydict()
        single = dtype == "float64"
        found = np.stack([table[name] for name in "abc"], 1) if single else table["embedding"]
        written = table["input"]
    elif ending.startswith(".np"):
        found = np.load(path) if ending == ".npy" else np.load(path)["embedding"]
        with (tmp_path / "out.rows.csv").open(newline="") as file:
            written = [line["input"] for line in csv.DictReader(file)]
    else:
        opened = gzip.open if ending.endswith(".gz") else open
        with opened(path, "rt", newline="") as file:
            lines = list(csv.DictReader(file))
        found = [[float(line[name]) for name in "abc"] for line in lines]
        written = [line["input"] for line in lines]
    np.testing.assert_array_equal(np.asarray(found, dtype), values)
    assert written == [one.written for one in rows]
    assert len(list(tmp_path.iterdir())) == (2 if ending.startswith(".np") else 1)


def interrupted(path: Path) -> None:
    """A window is written, and then no more."""
    with row_file(path, ["a"], "v", "float32") as file:
        file.write([row(1, "C")], np.zeros((1, 1), np.float32))
        raise KeyboardInterrupt


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_rows_give_the_same_bytes_and_a_fault_leaves_nothing(
    tmp_path: Path, ending: str
) -> None:
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    answers(first, "float32", parts=3)
    answers(second, "float32", parts=3)
    assert first.read_bytes() == second.read_bytes()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / f"third{ending}")
    assert sorted(tmp_path.iterdir()) == before


def test_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    given, there = tmp_path / "in.csv", tmp_path / "out.npy"
    given.write_text("smiles\nC\n")
    (tmp_path / "out.rows.csv").write_text("")
    with pytest.raises(UserError, match=r"out\.rows\.csv is there already"):
        check_places(str(given), str(there), [".npy"], False)
    assert check_places(str(given), str(there), [".npy"], True) == there
    with pytest.raises(UserError, match="is the input"):
        check_places(str(given), str(given), [".csv"], True)
    with pytest.raises(UserError, match="there is no such file"):
        check_places("missing.csv", str(there), [".npy"], True)


def test_a_file_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("one")
    said = described(str(path))
    assert unchanged(said)
    path.write_text("two")
    assert not unchanged(said)
    path.unlink()
    assert not unchanged(said)
    assert not unchanged(described("-"))
    assert not unchanged({})


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_stand_in_a_column_where_rows_have_some(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    rows = [InputRow(1, "MK", "MK", "ok", "", "P1"), InputRow(2, "", None, "empty", "none", "P2")]
    with row_file(path, ["a"], "v" if ending.startswith(".np") else "", "float64") as file:
        for one in rows:
            file.write([one], np.ones((1, 1)))
    if ending == ".parquet":
        found = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        table = tmp_path / "out.rows.csv" if ending.startswith(".np") else path
        opened = gzip.open if ending.endswith(".gz") else open
        with opened(table, "rt", newline="") as lines:
            found = list(csv.DictReader(lines))
    assert list(found[0])[:5] == ["row", "input", "status", "reason", "name"]
    assert [(one["name"], one["input"], one["reason"]) for one in found] == [
        ("P1", "MK", ""), ("P2", "", "none"),
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_no_rows_has_its_heading(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    with row_file(path, ["a"], "v" if ending.startswith(".np") else "", "float64"):
        pass
    if ending == ".csv":
        assert path.read_text() == "row,input,status,reason,a\n"
    if ending == ".npy":
        assert np.load(path).shape == (0, 1)
    assert path.is_file()
