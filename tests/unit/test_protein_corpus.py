"""Proteins in memory: what is held out, what is left out, and a corpus that is another one."""

import hashlib
import logging
from pathlib import Path

import pytest

from lit_seqlm.data.masking import CountedMasking
from lit_seqlm.data.packed import PackedData
from lit_seqlm.data.proteins.corpus import ProteinCorpus
from lit_seqlm.data.proteins.split_lists import write_split_list
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

PROTEINS = {
    "P1": "MKV" * 4, "P2": "ACDEFGHIKL", "P3": "WWYY" * 3, "P4": "MKV" * 4, "P5": "GGGGGGGGGG", "P6": "MK",
    "P7": "LLLLLKKKKK", "P8": "ACDEFGHIKL", "P9": "YYYYYHHHHHHH",
}  # fmt: skip
HELD_OUT = {"P3": "valid", "P2": "test", "P9": "test"}


def write(folder: Path, proteins: dict[str, str] = PROTEINS) -> Path:
    path = folder / "proteins.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins.items()))
    return path


def corpus(folder: Path, with_sha: bool = True, **changes: object) -> ProteinCorpus:
    path = write(folder)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    write_split_list(folder / "split.txt", {"sha256": sha256} if with_sha else {}, HELD_OUT)
    options = {"name": "made", "data_dir": str(folder), "path": "proteins.fasta", "split": str(folder / "split.txt"),
               "num_train": None, "min_len": 5, "max_len": 100, "home": "nowhere", "seed": 0}  # fmt: skip
    return ProteinCorpus(**options | changes)


def tokenizer(ambiguous: str = "keep") -> AminoAcidTokenizer:
    return AminoAcidTokenizer("cls", ambiguous, False)


def test_equal_sequences_count_once_and_never_in_two_splits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = corpus(tmp_path)
    with caplog.at_level(logging.INFO):
        train = made.sequences("train", tokenizer())
    assert train == [PROTEINS["P1"], PROTEINS["P5"], PROTEINS["P7"]], "P8 repeats a test protein"
    assert made.sequences("valid", tokenizer()) == [PROTEINS["P3"]]
    assert sorted(made.sequences("test", tokenizer())) == sorted([PROTEINS["P2"], PROTEINS["P9"]])
    assert "of 9 proteins 1 have another length than 5 to 100, 2 repeat another" in caplog.text


def test_a_corpus_that_changed_is_another_one(tmp_path: Path) -> None:
    before = corpus(tmp_path, with_sha=False).digest()
    changed = corpus(tmp_path, with_sha=False)
    write(tmp_path, PROTEINS | {"P10": "KKKKKKKKKK"})
    assert changed.digest() != before
    listed = corpus(tmp_path)
    write(tmp_path, PROTEINS | {"P10": "KKKKKKKKKK"})
    with pytest.raises(UserError, match="is not the file that its split was made for"):
        listed.digest()


def test_nothing_is_read_of_another_file_than_the_lists(tmp_path: Path) -> None:
    """Whoever asks, reports of leaks and n-grams too: what is new may be a relative of a test protein."""
    listed, short = corpus(tmp_path), corpus(tmp_path, max_len=80)
    write(tmp_path, PROTEINS | {"P10": "KKKKKKKKKK"})
    with pytest.raises(UserError, match="is not the file that its split was made for"):
        listed.sequences("train", tokenizer())
    (tmp_path / "split.txt").write_text(
        f"# max_len: 100\n{(tmp_path / 'split.txt').read_text().split(chr(10), 1)[1]}"
    )
    with pytest.raises(UserError, match=r"max_len=80: .*made for max_len=100"):
        short.sequences("test", tokenizer())


def test_a_list_of_another_corpus_is_refused(tmp_path: Path) -> None:
    made = corpus(tmp_path, with_sha=False)
    write(tmp_path, {"P1": "MKVMKVMKV"})
    with pytest.raises(UserError, match="lacks 3 of the 3 proteins"):
        made.sequences("train", tokenizer())


def test_other_lengths_than_the_lists_are_refused(tmp_path: Path) -> None:
    made = corpus(tmp_path)
    listed = (tmp_path / "split.txt").read_text()
    (tmp_path / "split.txt").write_text(f"# min_len: 5\n# max_len: 80\n{listed}")
    with pytest.raises(UserError, match=r"source\.max_len=100.*made for max_len=80"):
        made.digest()


@pytest.mark.parametrize(
    ("bad", "message"),
    [("AC-DEFG", "P2: '-' at position 3"), ("ACD1EFG", "P2: '1' at position 4"), ("", "P2")],
)
def test_a_broken_record_is_named(tmp_path: Path, bad: str, message: str) -> None:
    made = corpus(tmp_path, with_sha=False)
    write(tmp_path, PROTEINS | {"P2": bad})
    with pytest.raises(UserError, match=message):
        made.sequences("train", tokenizer())


def test_a_draw_is_a_part_and_always_the_same(tmp_path: Path) -> None:
    train = corpus(tmp_path, num_train=2).sequences("train", tokenizer())
    assert train == corpus(tmp_path, num_train=2).sequences("train", tokenizer())
    assert len(train) == 2
    assert set(train) < set(corpus(tmp_path).sequences("train", tokenizer()))
    with pytest.raises(UserError, match="there are 3"):
        corpus(tmp_path, num_train=4).sequences("train", tokenizer())


def data(folder: Path, **changes: object) -> PackedData:
    options = {
        "source": corpus(folder), "tokenizer": tokenizer(), "packing": "block_diagonal", "row_len": 32,
        "masking": CountedMasking(0.15, 0.8, 0.1, "content", "row"), "token_budget": 64, "eval_token_budget": 64,
        "window": 10, "multiple": 1, "min_len": 2, "max_len": 31, "over_long": "truncate", "seed": 1,
    }  # fmt: skip
    return PackedData(**options | changes)


@pytest.mark.parametrize("packing", ["block_diagonal", "none"])
def test_every_protein_is_in_an_epoch_once(tmp_path: Path, packing: str) -> None:
    made = data(tmp_path, packing=packing)
    made.setup()
    for loader, split in (
        (made.train_dataloader(), "train"),
        (made.exact_dataloader("test"), "test"),
    ):
        found = []
        for batch in loader:
            tokens = batch.targets_BT[batch.targets_BT > 0].tolist()
            found += "".join(
                "|" if one == 2 else made.tokenizer.decode([one]) for one in tokens
            ).split("|")
        assert sorted(filter(None, found)) == sorted(made.source.sequences(split, made.tokenizer))


def test_over_long_proteins_are_cut_or_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut, skipped = data(tmp_path, max_len=10), data(tmp_path, max_len=10, over_long="skip")
    cut.setup()
    assert cut.tables["train"].lengths.tolist() == [11, 11, 11]
    said = "1 of 3 sequences of train have more than data.max_len=10 tokens"
    assert said in caplog.text
    assert "tokens in all: data.max_len says so. data.over_long=skip leaves" in caplog.text
    with pytest.raises(UserError, match="no sequence of valid has 2 to 10 tokens"):
        skipped.setup()
    assert "1 of 3 sequences of train are left out: 1 too long" in caplog.text


def test_it_is_told_why_proteins_are_cut_where_a_row_has_room_for_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the Swiss-Prot sample, whose longest are of 512 residues and whose rows are of 512 tokens."""
    whole = data(tmp_path)
    whole.setup()
    lengths = whole.tables["train"].lengths - 1
    longest = int(lengths.max())
    assert (lengths == longest).sum() == 1
    caplog.clear()
    data(tmp_path, row_len=longest, max_len=longest - 1).setup()
    assert (
        f"made: 1 of 3 sequences of train have more than data.max_len={longest - 1} tokens. They are cut there, and "
        f"what is behind is not read, 1 tokens in all: a row of data.row_len={longest} has room for no more beside the "
        "ends of a sequence (1). data.over_long=skip leaves such sequences out"
    ) in caplog.text


def test_a_row_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.row_len=31.*Say data\.max_len=30"):
        data(tmp_path, row_len=31)
    with pytest.raises(UserError, match=r"data\.packing=dense"):
        data(tmp_path, packing="dense")
