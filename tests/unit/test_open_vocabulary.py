"""Ids for words when first seen, document starts, and what a new word's share of <unk> is."""

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lit_seqlm.data import open_vocabulary
from lit_seqlm.data.corpus import Corpus
from lit_seqlm.data.open_vocabulary import (
    CharacterBase,
    OpenStream,
    UniformBase,
    document_starts,
    novelty,
    open_stream,
)
from lit_seqlm.data.restyle import Restyled
from lit_seqlm.data.stream import FixedSegments
from lit_seqlm.data.text import TextData
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.char import CharTokenizer
from lit_seqlm.tokenizer.spelling import SpellingModel, by_bytes
from lit_seqlm.tokenizer.word import EOS, UNK, WordTokenizer

VOCABULARY = [UNK, EOS, "the", "cat", "sat"]
LINES = ["the dog sat <unk>\n", "\n", "the cat and the dog and owl\n"]


def known(vocabulary: list[str] = VOCABULARY, lowercase: bool = False) -> WordTokenizer:
    return WordTokenizer(lowercase, None, 1, vocabulary=vocabulary)


def random_lines(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        " ".join(f"w{n}" for n in rng.zipf(1.4, int(rng.integers(0, 12))) if n < 1000) + "\n"
        for _ in range(200)
    ]


def test_new_words_have_ids_in_the_order_of_first_sight() -> None:
    stream = open_stream(LINES, known())
    assert stream.words_N.tolist() == [2, 5, 4, 0, 1, 1, 2, 3, 6, 2, 5, 6, 7, 1]
    assert stream.words_N.dtype == np.int32
    assert stream.new_words == ["dog", "and", "owl"]
    assert (stream.num_new_words, stream.vocab_size, stream.unknown_id) == (3, 5, 0)
    assert stream.novelty_N.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 1, 0]
    assert stream.novelty_N.dtype == np.int8


@pytest.mark.parametrize("seed", range(5))
def test_against_a_loop_with_a_set(seed: int) -> None:
    lines = random_lines(seed)
    tokenizer = known([UNK, EOS, *(f"w{n}" for n in range(1, 6))])
    stream = open_stream(iter(lines), tokenizer)
    seen: list[str] = []
    flags, ids = [], []
    for word in [word for line in lines for word in [*line.split(), EOS]]:
        if word in tokenizer.index:
            flags.append(0)
            ids.append(tokenizer.index[word])
        else:
            flags.append(2 if word in seen else 1)
            if word not in seen:
                seen.append(word)
            ids.append(len(tokenizer) + seen.index(word))
    assert stream.novelty_N.tolist() == flags
    assert stream.words_N.tolist() == ids
    assert stream.new_words == seen
    assert np.array_equal(stream.closed(), tokenizer.encode(lines))


def test_a_text_without_new_words_and_an_empty_one() -> None:
    stream = open_stream(["the cat\n"], known())
    assert stream.new_words == []
    assert np.array_equal(stream.closed(), stream.words_N)
    assert stream.novelty_N.tolist() == [0, 0, 0]
    assert novelty(np.empty(0, np.int32), 5).tolist() == []
    assert novelty(np.array([5], np.int32), 5).tolist() == [1]


def test_other_tokenizers_name_their_own_new_words() -> None:
    chars = CharTokenizer(True, None, 1, vocabulary=[UNK, EOS, "a"])
    stream = open_stream(["aBa\n"], chars)
    assert stream.words_N.tolist() == [2, 3, 2, 1]
    assert stream.new_words == ["b"]


def test_documents_begin_where_their_first_token_stands() -> None:
    documents = [[], ["the cat\n", "\n"], ["\n"], [], ["owl\n"], []]
    lines = [line for document in documents for line in document]
    starts = document_starts(iter(documents), known(), len(open_stream(lines, known()).words_N))
    assert starts.tolist() == [0, 4, 5]
    assert starts.dtype == np.int64
    assert document_starts([["\n"]], known(), 1).tolist() == [0], "a document of one token"
    assert document_starts([], known(), 0).tolist() == []
    with pytest.raises(AssertionError, match="documents are its lines"):
        document_starts(documents, known(), 6)


class Source:
    """Train on the first words; validation and test bring others, in documents of three lines."""

    name = "source"

    def digest(self) -> str:
        return ""

    def fetch(self) -> None: ...

    def lines(self, split: str) -> Iterator[str]:
        return (line for document in self.documents(split) for line in document)

    def documents(self, split: str) -> Iterator[list[str]]:
        lines = random_lines({"train": 0, "valid": 1, "test": 2}[split])
        return (lines[n : n + 3] for n in range(0, len(lines), 3))


def text_data(source: object) -> TextData:
    tokenizer = WordTokenizer(False, None, 3)
    return TextData(source, tokenizer, FixedSegments(10), 2, 2, 32, None, "none", 0)  # type: ignore[arg-type]


def test_text_data_opens_each_split_alone() -> None:
    data = text_data(Source())
    for split in ("valid", "test"):
        stream = data.open_stream(split)
        assert np.array_equal(stream.closed(), data.streams[split].numpy())
        assert stream.unknown_id == data.unknown_id
        assert stream.num_new_words == stream.words_N.max() - len(data.tokenizer) + 1 > 0
        assert (stream.novelty_N == 1).sum() == stream.num_new_words
        starts = data.document_starts(split)
        assert len(starts) == 67
        assert starts[0] == 0
        bounds = [*starts.tolist(), len(stream.words_N)]
        for begin, end, document in zip(
            bounds, bounds[1:], data.source.documents(split), strict=False
        ):
            assert np.array_equal(stream.closed()[begin:end], data.tokenizer.encode(document))


def test_uniform_shares_sum_to_one_over_unknown_words() -> None:
    stream = open_stream(LINES, known())
    base = UniformBase(None)
    base.prepare(VOCABULARY, stream)
    everything = np.arange(stream.vocab_size + stream.num_new_words)
    share = base.log_share(everything)
    assert share.dtype == np.float64
    assert share[1:5].tolist() == [0, 0, 0, 0]
    assert np.exp(share[[0, 5, 6, 7]]) == pytest.approx([0.25] * 4)
    assert base.log_share(stream.words_N).tolist() == [share[w] for w in stream.words_N]

    p_static = np.random.default_rng(0).dirichlet(np.ones(5))
    p_open = np.concatenate([p_static, np.full(3, p_static[0])]) * np.exp(share)
    assert p_open.sum() == pytest.approx(1, abs=1e-12)


def test_a_fixed_number_of_words_knows_nothing_of_the_stream() -> None:
    stream = open_stream(LINES, known())
    base = UniformBase(9)
    base.prepare(VOCABULARY, stream)
    assert np.exp(base.log_share(np.array([0, 5, 3]))) == pytest.approx([0.1, 0.1, 1])
    UniformBase(3).prepare(VOCABULARY, stream)
    with pytest.raises(UserError, match=r"num_words=2, but the stream has 3 .*num_words=3 or more"):
        UniformBase(2).prepare(VOCABULARY, stream)
    with pytest.raises(UserError, match="0 or more"):
        UniformBase(-1)


@pytest.mark.parametrize("base", [UniformBase(None), CharacterBase(5)])
def test_nothing_to_share_out_is_refused(base: UniformBase | CharacterBase) -> None:
    tokenizer = known(VOCABULARY[1:])
    with pytest.raises(UserError, match=r"needs a model with <unk>.*min_count=2"):
        base.prepare(tokenizer.vocabulary, open_stream(["the cat\n"], tokenizer))


def one_of_three(char: str) -> float:
    """An alphabet of a, b, c and the end."""
    return 1 / 4


WORDS = ["ab", "aab", "abc", "cab", "b"]


def witten_bell(words: list[str], context: str, char: str) -> float:
    """The recursive definition, counting anew each time; ^ begins and $ ends a word."""
    followers = [
        f"^{word}$"[n + len(context)]
        for word in words
        for n in range(1 - len(context) if not context else 0, len(word) + 2 - len(context))
        if f"^{word}$"[n:].startswith(context)
    ]
    shorter = witten_bell(words, context[1:], char) if context else one_of_three(char)
    distinct = len(set(followers))
    if not followers:
        return shorter
    return (followers.count(char) + distinct * shorter) / (len(followers) + distinct)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_spelling_equals_the_definition(order: int) -> None:
    model = SpellingModel(WORDS, order, one_of_three)
    for word in ["a", "ab", "cc", "abcab", "aabb"]:
        padded = f"^{word}$"
        log_prob = sum(
            math.log(witten_bell(WORDS, padded[max(0, n - order + 1) : n], padded[n]))
            for n in range(1, len(padded))
        )
        log_nonempty = math.log(1 - witten_bell(WORDS, "^"[: order - 1], "$"))
        assert model.log_prob(word) == pytest.approx(log_prob - log_nonempty, abs=1e-12)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_spellings_of_all_lengths_have_mass_one(order: int) -> None:
    """The end has probability e or more everywhere, so (1 - e)^n at most is left after n characters."""
    model = SpellingModel(WORDS, order, one_of_three)
    sums = [
        math.fsum(
            math.exp(model.log_prob("".join(word))) for word in itertools.product("abc", repeat=n)
        )
        for n in range(1, 10)
    ]
    total = np.cumsum(sums)
    assert (total <= 1 + 1e-12).all()
    contexts = ["".join(c) for n in range(order) for c in itertools.product("abc", repeat=n)]
    contexts += [" " + c for c in contexts if len(c) < order - 1]
    ends = min(model._prob(context, "") for context in contexts)
    left = 1 - total
    assert (left[1:] <= left[:-1] * (1 - ends) + 1e-12).all(), "what is left shrinks by e a step"
    assert left[-1] <= (1 - ends) ** 8
    assert left[-1] < 0.1


def test_characters_by_their_bytes_have_mass_one() -> None:
    everything = [by_bytes(""), *(by_bytes(chr(code)) for code in range(0x110000))]
    assert math.fsum(everything) == pytest.approx(1, abs=1e-12)
    assert by_bytes("") == by_bytes(",") == 256 * by_bytes("é")


def test_unseen_characters_have_a_spelling_and_seen_ones_a_better_one() -> None:
    words = ["walking", "talking", "walked", "talked", "walks"]
    model = SpellingModel(words, 5, by_bytes)
    assert math.isfinite(model.log_prob("ẁ雪"))
    assert model.log_prob("talks") > model.log_prob("talkg") > model.log_prob("talk雪")
    empty = SpellingModel([], 5, one_of_three)
    assert math.exp(empty.log_prob("a")) == pytest.approx(1 / 3 * 1 / 4)


def test_character_shares_sum_to_one_over_what_the_vocabulary_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an alphabet of three letters, over all strings up to length 9; the rest is bounded by the model's own."""
    monkeypatch.setattr(open_vocabulary, "by_bytes", one_of_three)
    vocabulary = [UNK, EOS, *WORDS]
    strings = ["".join(w) for n in range(1, 10) for w in itertools.product("abc", repeat=n)]
    new = [word for word in strings if word not in vocabulary]
    stream = OpenStream(np.empty(0, np.int32), np.empty(0, np.int8), new, len(vocabulary), 0)
    base = CharacterBase(3)
    base.prepare(vocabulary, stream)
    share = np.exp(base.log_share(np.arange(len(vocabulary) + len(new))))
    assert share[1 : len(vocabulary)].tolist() == [1] * (len(vocabulary) - 1)

    model = SpellingModel([UNK, *WORDS], 3, one_of_three)
    prob = {word: math.exp(model.log_prob(word)) for word in [*strings, UNK, EOS]}
    left = 1 - sum(prob[word] for word in [*WORDS, EOS])
    assert share[0] == pytest.approx(prob[UNK] / left)
    assert share[len(vocabulary) :] == pytest.approx([prob[word] / left for word in new])
    assert share[len(vocabulary) :].sum() < 1


def test_a_character_order_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="order=0: at least 1"):
        CharacterBase(0)


ROOT = Path(os.environ.get("LIT_SEQLM_DATA", "."))


@pytest.mark.data
@pytest.mark.skipif(
    "LIT_SEQLM_DATA" not in os.environ,
    reason="LIT_SEQLM_DATA is unset; shared/data/README.md names it",
)
class TestRealText:
    """Specification, section 3: a Penn Treebank model reads WikiText-2."""

    def test_a_quarter_is_new_to_the_treebank_and_most_of_it_comes_again(self) -> None:
        tokenizer = WordTokenizer(False, None, 1)
        tokenizer.fit(Corpus("ptb", str(ROOT)).lines("train"))
        source = Restyled(Corpus("wikitext2", str(ROOT)), "lower", "documents", "kept", None, 0)
        stream = open_stream(source.lines("test"), tokenizer)
        new = stream.novelty_N > 0
        assert new.mean() == pytest.approx(0.259, abs=0.001)
        assert (stream.novelty_N[new] == 2).mean() == pytest.approx(0.90, abs=0.005)
        assert stream.num_new_words == 6288
        base = CharacterBase(5)
        base.prepare(tokenizer.vocabulary, stream)
        uniform = UniformBase(None)
        uniform.prepare(tokenizer.vocabulary, stream)
        first = stream.words_N[stream.novelty_N == 1]
        assert base.log_share(first).mean() < uniform.log_share(first).mean(), "spelling costs more"

    def test_articles_begin_at_their_headings(self) -> None:
        corpus = Corpus("wikitext2", str(ROOT))
        words = [word for line in corpus.lines("test") for word in [*line.split(), EOS]]
        starts = document_starts(corpus.documents("test"), known(), len(words))
        assert len(starts) == 60
        assert all(words[start : start + 2] == [EOS, "="] for start in starts)
