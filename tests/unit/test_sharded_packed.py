"""Packed rows streamed from shards: each protein once, whole, steps in number, exact resume, flat memory."""

import gc
import json
import runpy
import sys
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.masking import CountedMasking, Masking
from lit_seqlm.data.packed_loader import pack
from lit_seqlm.data.prepare.pipeline import prepare
from lit_seqlm.data.proteins.leak import LeakReport, leak_report
from lit_seqlm.data.proteins.named import named_proteins, named_sequences
from lit_seqlm.data.sharded import ShardedMaskedData
from lit_seqlm.data.sharded_packed import ShardedPackedData
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer
from lit_seqlm.tokenizer.smiles import SmilesTokenizer
from tests.conftest import ROOT
from tests.unit.test_prepare_proteins import (
    drawn,
    few_partitions,
    options_of,
    read_back,
    write_table,
)
from tests.unit.test_shards import write_corpus

__all__ = ["few_partitions"]  # a fixture for all tests here

NUM_PROTEINS, LONGEST, ROW = 3000, 40, 128
CLS, MASK = 2, 1


def make(folder: Path, number: int = NUM_PROTEINS) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "a.tsv", drawn(number, LONGEST, seed=7))
    prepare(options_of(folder, holdout=0.1))
    return str(folder / "corpus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def proteins(folder: str) -> dict[str, list[str]]:
    return read_back(Path(folder))


def data(
    folder: str, rank: int = 0, world_size: int = 1, epoch: int = 0, **changes: Any
) -> ShardedPackedData:
    options = {
        "tokenizer": AminoAcidTokenizer("cls", "keep", False),
        "row_len": ROW,
        "token_budget": 4 * ROW + 5,
        "eval_token_budget": 2 * ROW,
        "window": 700,
        "seed": 1,
    }
    masking = CountedMasking(0.15, 0.8, 0.1, "content", "row")
    made = ShardedPackedData(ShardSource(folder), masking=masking, **(options | changes))
    made.setup()
    made.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=world_size)
    return made


def sequences(batch: Batch) -> list[str]:
    """Which proteins a batch holds, each whole; none where it only keeps step."""
    assert batch.mask_BT is not None
    assert batch.segments_BT is not None
    assert batch.valid_BT is None
    if not batch.mask_BT.any():
        return []
    found, tokenizer = [], AminoAcidTokenizer("cls", "keep", False)
    for segment in range(int(batch.segments_BT.max()) + 1):
        ids = batch.targets_BT[batch.segments_BT == segment]
        assert (ids == CLS).nonzero().flatten().tolist() == [0]
        found.append(tokenizer.decode(ids.tolist()))
    return found


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_each_protein_once_and_as_many_steps_for_all(
    folder: str, proteins: dict[str, list[str]], world_size: int
) -> None:
    found: Counter[str] = Counter()
    steps = set()
    for rank in range(world_size):
        loader = data(folder, rank, world_size).train_dataloader()
        batches = list(loader)
        assert len(batches) == len(loader)
        steps.add(len(batches))
        for batch in batches:
            found.update(sequences(batch))
    assert found == Counter(proteins["train"])
    assert len(steps) == 1


def test_batches_are_even_and_keep_the_budget(folder: str) -> None:
    sizes = [batch.tokens_BT.numel() for batch in data(folder).train_dataloader()]
    assert max(sizes) <= 5 * ROW
    assert np.mean(np.array(sizes) <= 4 * ROW) > 0.9
    assert np.mean(sizes) > 0.75 * 4 * ROW


def test_the_plan_knows_how_full_rows_become(folder: str, proteins: dict[str, list[str]]) -> None:
    """Estimated from the manifest's lengths; counted on the proteins themselves."""
    lengths = np.array([len(one) + 1 for one in proteins["train"]])
    rng = np.random.default_rng(0)
    counted = np.mean([len(pack(rng.permutation(len(lengths)), lengths, ROW)) for _ in range(20)])
    num_rows, size = data(folder).sizes(1, 1)
    assert num_rows == pytest.approx(counted, rel=0.01)
    assert size == 4


@pytest.mark.parametrize("position", [0, 1, 30, 31, 100])
def test_a_loader_goes_on_where_it_was(folder: str, position: int) -> None:
    whole = list(data(folder, 1, 2, epoch=3).train_dataloader())
    loader = data(folder, 1, 2, epoch=3).train_dataloader()
    position = min(position, len(loader) - 1)
    head = list(islice(loader, position))
    again = data(folder, 1, 2, epoch=3).train_dataloader()
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    together = [*head, *again]
    assert len(together) == len(whole)
    for one, other in zip(together, whole, strict=True):
        assert torch.equal(one.tokens_BT, other.tokens_BT)
        assert torch.equal(one.mask_BT, other.mask_BT)
        assert torch.equal(one.segments_BT, other.segments_BT)


def test_a_place_among_other_processes_is_refused(folder: str) -> None:
    place = data(folder, 0, 2).train_dataloader().state_dict()
    with pytest.raises(UserError, match=r"shared by 2 processes.*trainer\.devices=2"):
        data(folder, 0, 3).train_dataloader().load_state_dict(place)


def test_rows_are_the_seeds_the_epochs_and_the_processs(folder: str) -> None:
    def first(**changes: int) -> list[int]:
        return next(iter(data(folder, **changes).train_dataloader())).tokens_BT.flatten().tolist()

    assert first() == first()
    others = [first(seed=2), first(epoch=1), first(rank=1, world_size=2), first(world_size=2)]
    assert all(first() != other for other in others)


def test_masks_are_counted_by_row(folder: str) -> None:
    """ProteinLM's: 15 % of each packed row, so of a batch up to half a token a row."""
    for batch in data(folder).train_dataloader():
        selected = int(batch.mask_BT.sum())
        assert selected == pytest.approx(0.15 * batch.tokens_BT.numel(), abs=0.5 * 5)
        assert not (batch.mask_BT & (batch.targets_BT == CLS)).any()
        changed = batch.tokens_BT != batch.targets_BT
        assert (batch.mask_BT | ~changed).all()
        assert (batch.tokens_BT == MASK).any()


def test_what_is_held_out_is_validation_and_test_each_once(
    folder: str, proteins: dict[str, list[str]]
) -> None:
    made, again = data(folder), data(folder, seed=5, epoch=4)
    for split in ("valid", "test"):
        found: list[str] = []
        batches = list(made.exact_dataloader(split))
        for one, other in zip(batches, again.exact_dataloader(split), strict=True):
            assert torch.equal(one.tokens_BT, other.tokens_BT), "fixed masks"
            assert one.tokens_BT.numel() <= 2 * ROW
            found += sequences(one)
        assert Counter(found) == Counter(proteins[split])


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    peaks = []
    for count in (1_200, 4_000):
        loader = data(make(tmp_path / str(count), count), window=200).train_dataloader()
        batches = iter(loader)
        next(batches)
        gc.collect()
        tracemalloc.start()
        assert sum(1 for _ in batches) == len(loader) - 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_padded_batches_of_the_same_corpus(folder: str, proteins: dict[str, list[str]]) -> None:
    """The data of molecules read proteins too."""
    tokenizer, masking = AminoAcidTokenizer("cls", "keep", False), Masking(0.15, 0.8, 0.1, "all")
    made = ShardedMaskedData(ShardSource(folder), tokenizer, masking, 512, 512, 700, 1, 1)
    made.setup()
    found = [
        tokenizer.decode(row.tolist())
        for batch in made.train_dataloader()
        if batch.mask_BT.any()
        for row in batch.targets_BT
    ]
    assert Counter(found) == Counter(proteins["train"])


class TestFaults:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"row_len": 40}, r"sequence of 41 tokens\. Say data\.row_len=41.*--max-len 39"),
            ({"row_len": 0}, "row_len=0"),
            ({"window": 0}, "window=0"),
            (
                {"tokenizer": AminoAcidTokenizer("cls_sep", "keep", False)},
                r"the corpus has ends=cls, the tokenizer cls_sep\. Say data\.tokenizer\.ends=cls",
            ),
            ({"tokenizer": AminoAcidTokenizer("cls", "to_x", False)}, "ambiguous=keep"),
            ({"tokenizer": SmilesTokenizer(None, "unk", False, 1)}, "data=protein_shards"),
        ],
    )
    def test_what_cannot_be(self, folder: str, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            data(folder, **changes)

    def test_a_corpus_of_molecules(self, tmp_path: Path) -> None:
        write_corpus(tmp_path / "corpus", {"train": 100, "valid": 10})
        with pytest.raises(
            UserError, match=r"the corpus is of molecules\. Say data=molecule_shards"
        ):
            data(str(tmp_path / "corpus"))

    def test_nothing_held_out(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.tsv", drawn(50))
        prepare(options_of(tmp_path, holdout=0.0))
        with pytest.raises(UserError, match=r"nothing is held out for valid.*larger --holdout"):
            data(str(tmp_path / "corpus"))

    def test_too_many_processes(self, tmp_path: Path) -> None:
        write_table(tmp_path / "a.tsv", drawn(300))
        prepare(options_of(tmp_path, holdout=0.3))
        with pytest.raises(UserError, match=r"too few for 50 processes.*fewer trainer\.devices"):
            data(str(tmp_path / "corpus"), 49, 50).train_dataloader()


def test_the_longest_of_all_splits(folder: str, proteins: dict[str, list[str]]) -> None:
    """As the proteins themselves have it; a row that takes it is long enough, one less is not."""
    most, split = ShardSource(folder).longest
    assert most == 1 + max(len(one) for found in proteins.values() for one in found)
    assert most == 1 + max(map(len, proteins[split]))
    data(folder, row_len=most)
    with pytest.raises(UserError, match=rf"sequence of {most} tokens"):
        data(folder, row_len=most - 1)


def test_a_corpus_of_shards_has_a_leak_report(
    folder: str, proteins: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the same sequences in memory."""
    test, train = (f"protein_shards:{split},source.folder={folder}" for split in ("test", "train"))
    for made, split in ((test, "test"), (train, "train")):
        named = named_proteins(made)
        assert not isinstance(named, list), "which would have to fit into memory"
        assert len(named) == len(proteins[split])
        assert list(named) == list(named) == named_sequences(made)
        assert Counter(named) == Counter(proteins[split])
    words = [test, train, "--no-search", f"--output={tmp_path / 'leak.json'}"]
    monkeypatch.setattr(sys, "argv", ["protein_leak.py", *words])
    assert runpy.run_path(str(ROOT / "experiments" / "protein_leak.py"))["main"]() == 0
    wanted, _ = leak_report(
        named_sequences(test), named_sequences(train), len(proteins["train"]), tmp_path / "work", None, (test, train)
    )  # fmt: skip
    assert LeakReport.read(tmp_path / "leak.json") == wanted
    assert wanted.exact == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("protein_shards:test", "source.folder"),
        ("protein_shards:tset,source.folder={folder}", "its splits are train, valid, test"),
        ("protein_shards:test,source.folder=nowhere", "is no prepared corpus"),
        ("protein_shards:test,source.folder={molecules}", "the corpus is of molecules"),
    ],
)
def test_shards_that_have_no_such_proteins(
    folder: str, tmp_path: Path, words: str, message: str
) -> None:
    molecules = tmp_path / "molecules"
    write_corpus(molecules, {"train": 20, "valid": 20})
    with pytest.raises(UserError, match=message):
        named_sequences(words.format(folder=folder, molecules=molecules))
