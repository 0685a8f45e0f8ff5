"""Reading shards: each molecule once, for any number of readers, from any place on."""

import json
import pickle
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lit_seqlm.data.prepare.manifest import write_manifest
from lit_seqlm.data.prepare.write import BLOCK, write_split
from lit_seqlm.data.shards import ShardSource, ShardStream
from lit_seqlm.errors import UserError

NUM_MOLECULES = {"train": 2300, "valid": 300}  # neither fills its last block
SHARD = 3 * BLOCK + 17  # rounded down to three blocks


def write_corpus(folder: Path, num_molecules: dict[str, int]) -> None:
    """Molecule i of a split is ``0 i%1000 i//1000 5 ... 5 1``, of 4 to 12 tokens."""
    work = folder / "work"
    work.mkdir(parents=True)
    for split, count in num_molecules.items():
        rows = [[0, i % 1000, i // 1000, *[5] * (i % 9), 1] for i in range(count)]
        for part, chosen in ((3, rows[:700]), (200, rows[700:])):
            ids = np.array([token for row in chosen for token in row], np.uint16)
            ids.tofile(work / f"{part:03d}.{split}.ids")
            np.array([len(row) for row in chosen], np.uint16).tofile(
                work / f"{part:03d}.{split}.lengths"
            )
        assert write_split(split, work, folder / split, SHARD, lambda amount: None) == count
    shutil.rmtree(work)
    (folder / "vocabulary.txt").write_text("<bos>\n")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    content = {
        "format": 1,
        "splits": {s: {"molecules": n, "tokens": 7 * n} for s, n in num_molecules.items()},
        "canonical": {"isomeric": False},
        "vocabulary": {"sha256": "0" * 64},
        "block": BLOCK,
        "shard_molecules": SHARD,
    }
    write_manifest(folder, content, dict.fromkeys(names, "0" * 64))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("shards") / "corpus"
    write_corpus(found, NUM_MOLECULES)
    return found


@pytest.fixture
def source(folder: Path) -> ShardSource:
    return ShardSource(str(folder))


def numbers(stream: ShardStream) -> list[int]:
    """Which molecules come, checking each token of them."""
    found = []
    for ids in stream:
        assert ids.dtype == np.uint16
        number = int(ids[1]) + 1000 * int(ids[2])
        assert ids.tolist() == [0, number % 1000, number // 1000, *[5] * (number % 9), 1]
        found.append(number)
    return found


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 40])
def test_each_molecule_once_over_all_readers(
    source: ShardSource, split: str, world_size: int
) -> None:
    parts = []
    for rank in range(world_size):
        stream = source.open(split, 5, 2, rank, world_size)
        parts.append(numbers(stream))
        assert len(parts[-1]) == len(stream)
    everything = Counter(number for part in parts for number in part)
    assert everything == Counter(range(NUM_MOLECULES[split]))
    assert max(map(len, parts)) - min(map(len, parts)) < 2 * BLOCK


def test_the_order_is_the_seed_s_and_the_epoch_s(source: ShardSource) -> None:
    def order(seed: int, epoch: int, split: str = "train") -> list[int]:
        return numbers(source.open(split, seed, epoch, 0, 1))

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    first = np.array(order(1, 0))
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.9
    assert order(1, 0, "valid") == order(2, 3, "valid") == list(range(NUM_MOLECULES["valid"]))


def test_what_is_read_together_lies_together(source: ShardSource) -> None:
    """A file is finished before the next one is opened."""
    files = np.array(numbers(source.open("train", 0, 0, 0, 1))) // (SHARD // BLOCK * BLOCK)
    assert np.count_nonzero(np.diff(files)) == files.max()


@pytest.mark.parametrize("consumed", [0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 1000, 1149, 1150])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_a_resumed_stream_goes_on_with_the_next_molecule(
    source: ShardSource, consumed: int, rank: int, world_size: int
) -> None:
    stream = source.open("train", 3, 1, rank, world_size)
    consumed = min(consumed, len(stream))
    for _ in range(consumed):
        next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    again = source.open("train", 3, 1, rank, world_size)
    again.load_state_dict(state)
    rest = numbers(again)
    assert rest == numbers(stream)
    assert len(rest) == len(stream) - consumed


def test_the_place_in_another_stream_is_refused(source: ShardSource) -> None:
    state = source.open("train", 3, 1, 0, 2).state_dict()
    with pytest.raises(UserError, match="belongs to world_size=2, the run has world_size=4"):
        source.open("train", 3, 1, 0, 4).load_state_dict(state)
    with pytest.raises(UserError, match="belongs to seed=3"):
        source.open("train", 4, 1, 0, 2).load_state_dict(state)


def test_a_stream_travels_to_a_loading_process(source: ShardSource) -> None:
    stream = source.open("train", 0, 0, 0, 2)
    assert numbers(pickle.loads(pickle.dumps(stream))) == numbers(stream)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    peaks = []
    for count in (2_000, 20_000):
        write_corpus(tmp_path / str(count), {"train": count})
        stream = ShardSource(str(tmp_path / str(count))).open("train", 0, 0, 0, 1)
        next(stream)
        tracemalloc.start()
        assert sum(1 for _ in stream) == count - 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_litdata_reads_the_same_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A split is a plain litdata dataset, whatever reads it."""
    from litdata.streaming import dataset

    monkeypatch.setattr(dataset, "_check_version_and_prompt_upgrade", lambda version: None)
    blocks = list(dataset.StreamingDataset(str(folder / "valid")))
    assert [len(lengths) for lengths, _ in blocks] == [BLOCK, NUM_MOLECULES["valid"] - BLOCK]
    assert sum(len(ids) for _, ids in blocks) == sum(int(lengths.sum()) for lengths, _ in blocks)


class TestFaults:
    def test_no_corpus(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no prepared corpus.*prepare_corpus\.py"):
            ShardSource(str(tmp_path))

    def test_another_format(self, tmp_path: Path) -> None:
        (tmp_path / "manifest.json").write_text('{"format": 99}')
        with pytest.raises(UserError, match="has format 99, this program reads 1"):
            ShardSource(str(tmp_path))

    @pytest.mark.parametrize(("size", "message"), [(None, "is missing"), (10, "has 10 bytes")])
    def test_a_copy_that_broke_off(
        self, folder: Path, tmp_path: Path, size: int | None, message: str
    ) -> None:
        shutil.copytree(folder, tmp_path / "copy")
        broken = tmp_path / "copy" / "train" / "chunk-0-1.bin"
        if size is None:
            broken.unlink()
        else:
            broken.write_bytes(broken.read_bytes()[:size])
        with pytest.raises(UserError, match=rf"chunk-0-1\.bin {message}.*Copy the folder again"):
            ShardSource(str(tmp_path / "copy"))

    def test_another_split_or_reader(self, source: ShardSource) -> None:
        with pytest.raises(UserError, match=r"has no 'test'\. It has train and valid"):
            source.open("test", 0, 0, 0, 1)
        with pytest.raises(UserError, match="reader 2 of 2"):
            source.open("train", 0, 0, 2, 2)


def test_a_copy_is_the_same_corpus_another_one_is_not(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    digest = ShardSource(str(folder)).digest()
    assert ShardSource(str(tmp_path / "copy")).digest() == digest
    said = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    said["files"]["train/chunk-0-0.bin"]["sha256"] = "1" * 64
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(said))
    assert ShardSource(str(tmp_path / "copy")).digest() != digest
