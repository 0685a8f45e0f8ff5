"""The table of amino acids, and what becomes of written sequences."""

import logging
import os

import numpy as np
import pytest

from lit_seqlm.data.proteins.cleaning import Record, clean, cleaned
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

# TAPE's `iupac` vocabulary, from its repository.
LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
TAPE = ["<pad>", "<mask>", "<cls>", "<sep>", "<unk>", *LETTERS]


def tokenizer(
    ends: str = "cls", ambiguous: str = "keep", gapped: bool = False
) -> AminoAcidTokenizer:
    return AminoAcidTokenizer(ends, ambiguous, gapped)


def test_the_first_thirty_ids_are_tapes() -> None:
    assert tokenizer().vocabulary[:30] == TAPE
    assert tokenizer().vocabulary[30:] == ["<nterm>", "<cterm>"]
    assert tokenizer().special_ids == [0, 1, 2, 3, 4, 30, 31]


@pytest.mark.parametrize("ends", ["cls", "cls_sep"])
def test_all_letters_come_back(ends: str) -> None:
    made = tokenizer(ends)
    (row,) = made.encode([LETTERS])
    assert row[0] == 2
    assert row[1 : 1 + len(LETTERS)].tolist() == list(range(5, 30))
    assert len(row) == len(LETTERS) + made.num_ends
    assert (row[-1] == 3) == (ends == "cls_sep")
    assert made.decode(row) == LETTERS


def test_many_sequences_are_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list(LETTERS), size)) for size in (1, 7, 300, 2, 2, 41)]
    for ends in ("cls", "cls_sep"):
        made = tokenizer(ends)
        table = made.encode(sequences)
        ends_of = {"cls": [], "cls_sep": [3]}[ends]
        for row, sequence in zip(table, sequences, strict=True):
            assert row.tolist() == [2, *(TAPE.index(letter) for letter in sequence), *ends_of]
    assert len(tokenizer().encode([])) == 0


@pytest.mark.parametrize("bad", ["", "AJC", "A*", "A-C", "acd", "AC D", "Aé", "A\U0001f9ec"])
def test_what_is_no_residue_is_refused_with_its_place(bad: str) -> None:
    made = tokenizer()
    assert made.problems(["AC", bad])[0] is None
    assert made.problems(["AC", bad])[1]
    with pytest.raises(UserError, match="sequence 2"):
        made.encode(["AC", bad])


def test_a_state_comes_back() -> None:
    made, other = tokenizer("cls_sep", "to_x", True), tokenizer()
    other.load_state_dict(made.state_dict())
    assert other.state_dict() == made.state_dict()
    assert other.num_ends == 2


def test_wrong_words_are_refused() -> None:
    for options in ({"ends": "bos"}, {"ambiguous": "mask"}):
        with pytest.raises(UserError, match="choose"):
            tokenizer(**options)


@pytest.mark.parametrize(
    ("written", "ambiguous", "gapped", "sequence"),
    [
        ("ACD", "keep", False, "ACD"),
        (" AC\tD\n", "keep", False, "ACD"),
        ("ACD*", "keep", False, "ACD"),
        ("acD", "keep", False, "ACD"),
        ("ABZUOJX", "keep", False, "ABZUOXX"),
        ("ABZUOJX", "to_x", False, "AXXXXXX"),
        ("A-C.D", "keep", True, "ACD"),
    ],
)
def test_what_cleaning_makes_of_a_sequence(
    written: str, ambiguous: str, gapped: bool, sequence: str
) -> None:
    found = clean(written, ambiguous, gapped)
    assert (found.sequence, found.status) == (sequence, "ok")


@pytest.mark.parametrize(
    ("written", "gapped", "reason"),
    [
        ("AC-D", False, r"'-' at position 3"),
        ("A*CD", False, r"'\*' at position 2"),
        ("A*CD", True, r"'\*' at position 2"),
        ("-A1", True, "'1' at position 3"),
        ("Aß", False, "'ß' at position 2"),
        ("ACD**", False, r"'\*' at position 4"),
    ],
)
def test_cleaning_names_the_first_character_that_is_no_residue(
    written: str, gapped: bool, reason: str
) -> None:
    with pytest.raises(UserError, match=f"data=x, P1: {reason} is no residue"):
        list(cleaned([Record("P1", written)], tokenizer(gapped=gapped), "data=x"))


@pytest.mark.parametrize("empty", ["", "  ", "*", "\n"])
def test_an_empty_sequence_names_its_record(empty: str) -> None:
    with pytest.raises(UserError, match="data=x, P2: the sequence is empty"):
        list(cleaned([Record("P1", "A"), Record("P2", empty)], tokenizer(), "data=x"))


def test_dropped_and_lowered_sequences_are_told(caplog: pytest.LogCaptureFixture) -> None:
    records = [Record("a", "ACB"), Record("b", "acd"), Record("c", "AXC"), Record("d", "AC")]
    with caplog.at_level(logging.WARNING):
        kept = list(cleaned(records, tokenizer(ambiguous="drop"), "data=x"))
    assert [record.name for record in kept] == ["b", "d"]
    assert "1 sequences had lower-case letters" in caplog.text
    assert "2 sequences are left out (a: 'B' at position 3 is ambiguous; c: 'X'" in caplog.text
    assert "run.log" not in caplog.text


def test_every_dropped_sequence_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The first three on the screen, all in the file."""
    records = [Record(f"P{number}", "AX") for number in range(5)]
    with caplog.at_level(logging.INFO):
        assert not list(cleaned(records, tokenizer(ambiguous="drop"), "data=x"))
    screen, file = caplog.records
    names = [[f"P{n}" for n in range(5) if f"P{n}: 'X' at position 2" in one.getMessage()]
             for one in (screen, file)]  # fmt: skip
    assert names == [["P0", "P1", "P2"], ["P0", "P1", "P2", "P3", "P4"]]
    assert vars(file)["on_screen"] is False
    assert screen.getMessage().startswith("data=x, data.tokenizer.ambiguous=drop: 5 sequences are")


def test_a_log_is_named_only_where_there_is_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script or a notebook has none. The root logger's handlers are pytest's, one of them a file's."""
    records = [Record(f"P{number}", "AX") for number in range(5)]
    endings = []
    file = logging.FileHandler(os.devnull)
    for others in ([], [file]):
        caplog.clear()
        monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler, *others])
        list(cleaned(records, tokenizer(ambiguous="drop"), "data=x"))
        endings.append(caplog.records[0].getMessage().rpartition("; ")[2])
    file.close()
    assert endings == ["...)", "..., all in run.log)"]


@pytest.mark.parametrize(
    ("written", "position"), [("MK-V.xA", 6), ("--X", 3), ("M K-B-*", 4), ("MXJ", 2), ("mkvu*", 4)]
)
def test_an_ambiguous_residue_stands_where_it_is_written(written: str, position: int) -> None:
    found = clean(written, "drop", gapped=True)
    letter = written.replace(" ", "")[position - 1].upper()
    assert found.status == "ambiguous"
    assert found.reason == f"{letter!r} at position {position} is ambiguous"
