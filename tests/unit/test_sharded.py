"""Masked batches streamed from shards: each sequence once, steps in number, exact resume, flat memory."""

import gc
import json
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.bucketing import cut_by_budget, even_cut
from lit_seqlm.data.masking import Masking
from lit_seqlm.data.ranks import share
from lit_seqlm.data.sharded import ShardedMaskedData
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles import SmilesTokenizer
from lit_seqlm.tokenizer.smiles_vocabulary import BOS, EOS, MASK, PAD
from tests.unit.test_shards import write_corpus

NUM_TRAIN, NUM_VALID = 3000, 301
VOCABULARY = [BOS, EOS, PAD, MASK, *[f"[{number}H]" for number in range(4, 1000)]]


def make(folder: Path, num_train: int = NUM_TRAIN) -> str:
    """The corpus of test_shards, with a vocabulary and the lengths of its molecules."""
    write_corpus(folder, {"train": num_train, "valid": NUM_VALID})
    (folder / "vocabulary.txt").write_text("\n".join(VOCABULARY) + "\n")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["vocabulary.txt"]["bytes"] = (folder / "vocabulary.txt").stat().st_size
    for split in manifest["splits"].values():
        lengths = Counter(4 + row % 9 for row in range(split["molecules"]))
        split["lengths"] = {str(length): count for length, count in lengths.items()}
        split["tokens"] = sum(length * count for length, count in lengths.items())
    path.write_text(json.dumps(manifest))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("sharded") / "corpus")


def data(
    folder: str, rank: int = 0, world_size: int = 1, epoch: int = 0, **changes: int
) -> ShardedMaskedData:
    options = {
        "token_budget": 512,
        "eval_token_budget": 512,
        "window": 700,
        "multiple": 4,
        "seed": 1,
    }
    tokenizer = SmilesTokenizer(None, "error", False, 1)
    made = ShardedMaskedData(
        ShardSource(folder), tokenizer, Masking(0.3, 0.8, 0.1, "content"), **(options | changes)
    )
    made.setup()
    made.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=world_size)
    return made


def sequences(batch: Batch) -> list[int]:
    """Which molecules a batch holds; none where it only keeps step."""
    assert batch.mask_BT is not None
    if not batch.mask_BT.any():
        return []
    return [int(row[1]) + 1000 * int(row[2]) for row in batch.targets_BT]


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_each_sequence_once_and_as_many_steps_for_all(folder: str, world_size: int) -> None:
    found: Counter[int] = Counter()
    steps = set()
    for rank in range(world_size):
        loader = data(folder, rank, world_size).train_dataloader()
        batches = list(loader)
        assert len(batches) == len(loader)
        steps.add(len(batches))
        for batch in batches:
            found.update(sequences(batch))
    assert found == Counter(range(NUM_TRAIN))
    assert len(steps) == 1


def test_batches_keep_their_budget_and_are_even(folder: str) -> None:
    sizes = np.array([batch.tokens_BT.numel() for batch in data(folder).train_dataloader()])
    assert sizes.max() <= 1.02 * 512
    assert (sizes <= 512).mean() > 0.9
    assert sizes.mean() > 0.75 * 512
    widths = [batch.tokens_BT.size(1) for batch in data(folder).train_dataloader()]
    assert set(widths) == {4, 8, 12}
    assert np.abs(np.corrcoef(widths[:-1], widths[1:])[0, 1]) < 0.5, "long ones do not come last"


@pytest.mark.parametrize("position", [0, 1, 13, 14, 29, 40])
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


def test_a_place_among_other_processes_is_refused(folder: str) -> None:
    place = data(folder, 0, 2).train_dataloader().state_dict()
    with pytest.raises(UserError, match=r"shared by 2 processes.*trainer\.devices=2"):
        data(folder, 0, 3).train_dataloader().load_state_dict(place)


def test_order_and_masks_are_the_seeds_the_epochs_and_the_processs(folder: str) -> None:
    def first(**changes: int) -> list[int]:
        return next(iter(data(folder, **changes).train_dataloader())).tokens_BT.flatten().tolist()

    assert first() == first()
    others = [first(seed=2), first(epoch=1), first(rank=1, world_size=2), first(world_size=2)]
    assert all(first() != other for other in others)


def test_what_is_held_out_is_validation_and_test_each_once(folder: str) -> None:
    made, again = data(folder), data(folder, seed=5, epoch=4)
    found: Counter[int] = Counter()
    for split in ("valid", "test"):
        for one, other in zip(
            made.exact_dataloader(split), again.exact_dataloader(split), strict=True
        ):
            assert torch.equal(one.tokens_BT, other.tokens_BT), "fixed masks"
            found.update(sequences(one))
    assert found == Counter(range(NUM_VALID))


def test_validation_shared_by_processes_counts_each_once(folder: str) -> None:
    whole = [batch.tokens_BT.tolist() for batch in data(folder).val_dataloader()]
    loaders = [data(folder, rank, 4).val_dataloader() for rank in range(4)]
    assert len({len(loader) for loader in loaders}) == 1
    parts = [
        batch.tokens_BT.tolist() for loader in loaders for batch in loader if batch.mask_BT.any()
    ]
    assert sorted(parts) == sorted(whole), "masks too: they do not depend on the processes"


@pytest.mark.parametrize(("number", "size"), [(7, 3), (6, 3), (1, 4), (0, 2), (5, 1)])
def test_shares_are_even_and_complete(number: int, size: int) -> None:
    items = list("abcdefg"[:number])
    shares = [share(items, SimpleNamespace(global_rank=r, world_size=size)) for r in range(size)]
    assert {len(one) for one in shares} == {-(-number // size)}
    scored = [item for one in shares for item in one.batches[: one.num_scored]]
    assert sorted(scored) == items
    for one in shares:
        assert one.batches == [items[place] for place in one.numbers]


def test_an_even_cut_has_the_least_size_that_so_many_batches_allow() -> None:
    rng = np.random.default_rng(0)
    for number in (1, 3, 10, 60):
        lengths = np.sort(rng.integers(4, 60, 500))
        cut = even_cut(np.arange(500), lengths, number, 8)
        assert np.array_equal(np.concatenate(cut), np.arange(500))
        assert len(cut) <= number
        size = max(len(rows) * (-(-int(lengths[rows].max()) // 8) * 8) for rows in cut)
        assert len(cut_by_budget(np.arange(500), lengths, size - 1, 8)) > number or number == 1


def peak_of_an_epoch(made: ShardedMaskedData) -> int:
    """Bytes that reading it holds at once, but for the first batch."""
    loader = made.train_dataloader()
    batches = iter(loader)
    next(batches)
    gc.collect()
    tracemalloc.start()
    assert sum(1 for _ in batches) == len(loader) - 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """By the least of three epochs: what other parts of the process allocate meanwhile comes and goes."""
    peaks = []
    for count in (3_000, 15_000):
        made = data(make(tmp_path / str(count), count))
        peaks.append(min(peak_of_an_epoch(made) for _ in range(3)))
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_a_tokenizer_of_another_vocabulary_is_refused(folder: str) -> None:
    tokenizer = SmilesTokenizer(None, "unk", False, 1)
    tokenizer.fit(Counter("CNO"))
    made = ShardedMaskedData(
        ShardSource(folder), tokenizer, Masking(0.3, 0.8, 0.1, "content"), 512, 512, 700, 4, 1
    )
    with pytest.raises(UserError, match="made with another vocabulary"):
        made.setup()


def test_a_tokenizer_of_other_strings_is_refused(folder: str) -> None:
    tokenizer = SmilesTokenizer(ShardSource(folder).vocabulary, "unk", True, 1)
    made = ShardedMaskedData(
        ShardSource(folder), tokenizer, Masking(0.3, 0.8, 0.1, "content"), 512, 512, 700, 4, 1
    )
    with pytest.raises(UserError, match="the corpus has isomeric=False, the tokenizer True"):
        made.setup()
