"""TextData: what its loaders yield, what it refuses, and the real corpora."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_seqlm.data.corpus import Corpus
from lit_seqlm.data.stream import FixedSegments, WindowLoader
from lit_seqlm.data.text import TextData
from lit_seqlm.data.text_folder import TextFolder
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import WordTokenizer

LONG = [f"w{n % 7} w{n % 5} w{n % 3}\n" for n in range(100)]


class Lines:
    """A source of given lines."""

    name = "given"

    def __init__(self, **splits: list[str]):
        self.splits = {"train": LONG, "valid": LONG[:50], "test": LONG[:40], **splits}

    def fetch(self) -> None: ...

    def lines(self, split: str) -> Iterator[str]:
        return iter(self.splits[split])

    def documents(self, split: str) -> Iterator[list[str]]:
        yield self.splits[split]


def data_of(source: Any = None, tokenizer: WordTokenizer | None = None, **changes: Any) -> TextData:
    options: dict[str, Any] = {
        "segments": FixedSegments(7),
        "batch_size": 4,
        "eval_batch_size": 2,
        "eval_seq_len": 16,
        "eval_stride": None,
        "shuffle": "none",
        "seed": 1,
    }
    tokenizer = WordTokenizer(False, None, 1) if tokenizer is None else tokenizer
    data = TextData(source or Lines(), tokenizer, **{**options, **changes})
    data.prepare_data()
    return data


def message(data: TextData) -> str:
    with pytest.raises(UserError) as caught:
        data.setup()
    assert "\n" not in str(caught.value)
    assert data.streams == {}
    return str(caught.value)


def test_streams_and_loaders() -> None:
    data = data_of()
    data.setup()
    data.setup()  # Lightning calls it again
    assert {split: len(stream) for split, stream in data.streams.items()} == {
        "train": 400,
        "valid": 200,
        "test": 160,
    }
    assert {stream.dtype for stream in data.streams.values()} == {torch.int32}
    train, valid = list(data.train_dataloader()), list(data.val_dataloader())
    assert {batch.tokens_BT.size(0) for batch in train} == {4}
    assert sum(batch.targets_BT.numel() for batch in train) == 4 * 99
    assert sum(batch.targets_BT.numel() for batch in valid) == 2 * 99
    exact = list(data.exact_dataloader("test"))
    assert {batch.tokens_BT.size(0) for batch in exact} == {1}
    assert (
        torch.cat([b.targets_BT for b in exact], 1).flatten().tolist()
        == data.streams["test"][1:].tolist()
    )


def test_windows_score_as_many_tokens_as_a_carried_state() -> None:
    data = data_of(eval_stride=5)
    data.setup()
    loader = data.exact_dataloader("test")
    assert isinstance(loader, WindowLoader)
    assert sum(int(batch.mask_BT.sum()) for batch in loader if batch.mask_BT is not None) == 159


def test_partial_shuffle_moves_the_columns_and_no_token_is_lost() -> None:
    plain, shuffled = data_of(), data_of(shuffle="partial")
    plain.setup()
    shuffled.setup()
    before, after = plain.train_dataloader().columns_BL, shuffled.train_dataloader().columns_BL
    assert not torch.equal(before, after)
    assert torch.equal(before.sort(1).values, after.sort(1).values)
    assert torch.equal(after, shuffled.train_dataloader().columns_BL)  # same epoch, same place


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": []}, "the train text has no words"),
        ({"train": ["\n"] * 50}, "the train text has no words"),
        ({"test": ["\n"] * 50}, "the test text has no words"),
        ({"train": ["word\n"]}, "has 2 tokens, too few for 4 columns.*data.batch_size"),
        ({"valid": ["w1 w2\n"]}, "has 3 tokens, too few for 2 columns.*data.eval_batch_size"),
    ],
)
def test_texts_too_short_are_refused(splits: dict[str, list[str]], expected: str) -> None:
    data = data_of(Lines(**splits))
    with pytest.raises(UserError, match=expected):
        data.setup()
    assert "data=given" in message(data)


def test_a_short_test_text_is_enough_for_the_exact_protocol() -> None:
    data = data_of(Lines(test=["w1\n"]), batch_size=20)
    data.setup()
    assert sum(batch.targets_BT.numel() for batch in data.exact_dataloader("test")) == 1


def test_a_word_outside_the_vocabulary() -> None:
    lines = [*LONG[:50], "w1 zebra\n"]
    text = message(data_of(Lines(valid=lines)))
    assert text.startswith("data=given: the valid text, line 51: 'zebra'")
    data = data_of(Lines(valid=lines, train=[*LONG, "once\n"]), WordTokenizer(False, None, 2))
    data.setup()
    assert data.unknown_id is not None
    assert int(data.streams["valid"][-2]) == data.unknown_id


def test_bytes_are_counted_only_where_the_whole_text_is_predicted() -> None:
    whole = data_of(Lines(test=["w0 w1\n", "w2 é\n"] * 10, train=[*LONG, "é\n"]))
    whole.setup()
    assert whole.num_bytes("test") == 10 * (6 + 6)  # each line's end is one, é is two
    replaced = data_of(Lines(test=["w0 w1\n", "w2 new\n"] * 10), WordTokenizer(False, 5, 1))
    replaced.setup()
    assert replaced.num_replaced["test"] == 10 * 1 + sum(
        word not in replaced.tokenizer.index for word in ("w0", "w1", "w2") for _ in range(10)
    )
    assert replaced.num_bytes("test") is None
    folded = data_of(tokenizer=WordTokenizer(True, None, 1))
    folded.setup()
    assert folded.num_bytes("test") is None


def test_a_vocabulary_from_a_checkpoint_is_kept() -> None:
    vocabulary = ["zebra", *(f"w{n}" for n in range(7)), "<eos>"]
    data = data_of(tokenizer=WordTokenizer(False, None, 1, vocabulary=vocabulary))
    data.setup()
    assert len(data.tokenizer) == 9
    assert int(data.streams["train"].min()) == 1


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"eval_batch_size": -1}, {"eval_seq_len": 0}, {"shuffle": "yes"}]
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(changes))}="):
        data_of(**changes)


def test_a_folder_of_text_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join("".join(LONG[n : n + 10]) for n in range(0, 100, 10)))
    source = TextFolder(str(tmp_path), "*", "fraction", 0.2, 0.2, "kept", 0)
    data = data_of(source)
    data.setup()
    assert [len(stream) for stream in data.streams.values()] == [240, 80, 80]


ROOT = os.environ.get("LIT_SEQLM_DATA")
real = [
    pytest.mark.data,
    pytest.mark.skipif(not ROOT, reason="LIT_SEQLM_DATA is unset; shared/data/README.md names it"),
]
MD5 = {
    "ptb": {
        "train": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
        "valid": "aa0affc06ff7c36e977d7cd49e3839bf",
        "test": "8b80168b89c18661a38ef683c0dc3721",
    },
    "wikitext2": {
        "train": "34a77ebe59551b3a3b3d8c0a2797c976",
        "valid": "d756d22ab2310e7e60c094bea5c5a8eb",
        "test": "781c9418ab9414bd09e4aad825aae752",
    },
}
COUNTS = {
    "ptb": ([929_589, 73_760, 82_430], 10_000, [1, 1, 1]),
    "wikitext2": ([2_088_628, 217_646, 245_569], 33_278, [600, 60, 60]),
}


@pytest.fixture(params=["ptb", "wikitext2"])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    source = Corpus(request.param, str(ROOT))
    missing = [path for path in source.entry.paths(Path(str(ROOT))).values() if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not there")
    return source


class TestRealCorpora:
    """Specification, section 3."""

    pytestmark = real

    def test_files_are_the_published_ones(self, corpus: Corpus) -> None:
        corpus.fetch()
        for split, path in corpus.paths.items():
            content = path.read_bytes()
            assert hashlib.md5(content).hexdigest() == MD5[corpus.name][split]
            assert content.count(b"\n") == corpus.entry.files[split].lines

    def test_counts_vocabulary_and_predictions(self, corpus: Corpus) -> None:
        tokens, vocabulary, documents = COUNTS[corpus.name]
        data = data_of(corpus, batch_size=20, eval_batch_size=10, eval_seq_len=5000)
        data.setup()
        assert [len(stream) for stream in data.streams.values()] == tokens
        assert len(data.tokenizer) == vocabulary
        assert [len(list(corpus.documents(split))) for split in data.streams] == documents
        for split in ("valid", "test"):
            predictions = sum(b.targets_BT.numel() for b in data.exact_dataloader(split))
            assert predictions == len(data.streams[split]) - 1
        counts = torch.bincount(data.streams["train"])
        assert torch.equal(counts.sort(descending=True).values, counts)

    def test_domains_are_streams_of_documents(self) -> None:
        folder = Path(str(ROOT)) / "text" / "domains"
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there")
        source = TextFolder(str(folder), "state_union*", "fraction", 0.1, 0.1, "kept", 0)
        numbers = [len(list(source.documents(split))) for split in ("train", "valid", "test")]
        assert sum(numbers) == 65
        assert "2006" in " ".join(list(source.documents("test"))[-1][:3])
