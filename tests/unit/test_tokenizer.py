"""Vocabularies by frequency, ids, unknown words."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.char import CharTokenizer
from lit_seqlm.tokenizer.raw_word import RawWordTokenizer
from lit_seqlm.tokenizer.word import EOS, UNK, WordTokenizer

LINES = ["the cat saw the dog\n", "\n", "a dog saw a cat and the owl\n"]
OPTION = Path(__file__).parents[2] / "conf" / "tokenizer" / "raw_word.yaml"


def words(
    max_size: int | None = None, min_count: int = 1, lowercase: bool = False
) -> WordTokenizer:
    return WordTokenizer(lowercase, max_size, min_count)


def raw_words(**changes: object) -> RawWordTokenizer:
    options = yaml.safe_load(OPTION.read_text(encoding="utf-8"))
    options.pop("_target_")
    return RawWordTokenizer(**{**options, **changes})


def test_words_are_ranked_by_count_then_alphabet() -> None:
    tokenizer = words()
    tokenizer.fit(LINES)
    assert tokenizer.vocabulary == [EOS, "the", "a", "cat", "dog", "saw", "and", "owl"]
    assert tokenizer.index == {word: i for i, word in enumerate(tokenizer.vocabulary)}


def test_every_line_ends_in_eos_blank_ones_too() -> None:
    tokenizer = words()
    tokenizer.fit(LINES)
    ids = tokenizer.encode(LINES)
    assert ids.dtype == np.int32
    assert [tokenizer.vocabulary[i] for i in ids] == " ".join(LINES).replace(
        "\n", f" {EOS}"
    ).split()
    assert tokenizer.decode(tokenizer.encode(LINES[:1])) == "the cat saw the dog \n"


@pytest.mark.parametrize("options", [{}, {"min_count": 2}, {"max_size": 5}, {"lowercase": True}])
def test_fit_encode_is_fit_then_encode(options: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(f"W{n}" for n in rng.zipf(1.5, 20) if n < 500) + "\n" for _ in range(300)]
    first, second = words(**options), words(**options)
    ids = first.fit_encode(iter(lines))
    second.fit(iter(lines))
    assert first.vocabulary == second.vocabulary
    assert np.array_equal(ids, second.encode(iter(lines)))
    assert np.array_equal(np.sort(np.bincount(ids))[::-1], np.bincount(ids))  # ranked


def test_rare_words_become_unknown_and_unknown_is_ranked_by_all_of_them() -> None:
    tokenizer = words(min_count=2)
    tokenizer.fit([*LINES, "elk fox gnu\n"])  # and, owl, elk, fox, gnu: five unknown words
    assert tokenizer.vocabulary == [UNK, EOS, "the", "a", "cat", "dog", "saw"]
    assert tokenizer.encode(["owl yak"]).tolist() == [0, 0, 1]


@pytest.mark.parametrize("max_size", [3, 4, 6, 7])
def test_max_size_counts_the_special_words(max_size: int) -> None:
    tokenizer = words(max_size=max_size)
    tokenizer.fit(LINES)
    assert len(tokenizer) == max_size
    assert {EOS, UNK, "the"} <= set(tokenizer.vocabulary)


def test_a_vocabulary_that_fits_has_no_unknown_word() -> None:
    for max_size in (8, 9, None):
        tokenizer = words(max_size=max_size)
        tokenizer.fit(LINES)
        assert len(tokenizer) == 8
        assert UNK not in tokenizer.index


def test_unknown_in_the_text_is_a_word_like_others() -> None:
    tokenizer = words(min_count=2)
    tokenizer.fit([f"a a {UNK}\n"])
    assert set(tokenizer.vocabulary) == {"a", EOS, UNK}


def test_a_word_outside_the_vocabulary_is_named_with_its_line() -> None:
    tokenizer = words()
    tokenizer.fit(LINES)
    with pytest.raises(UserError) as caught:
        tokenizer.encode([*LINES, "the yak\n"], "data=x: the test text")
    message = str(caught.value)
    assert message.startswith(
        "data=x: the test text, line 4: 'yak' is not in the vocabulary of 8 words"
    )
    assert "min_count=2" in message


def test_a_vocabulary_travels_in_the_checkpoint() -> None:
    tokenizer, other = words(), words()
    tokenizer.fit(LINES)
    other.load_state_dict(tokenizer.state_dict())  # type: ignore[arg-type]
    assert np.array_equal(tokenizer.encode(LINES), other.encode(LINES))
    assert len(WordTokenizer(False, None, 1, vocabulary=["a", EOS])) == 2


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="max_size=2"):
        words(max_size=2)


def test_raw_text_is_words_numbers_and_signs() -> None:
    apostrophe = "\N{RIGHT SINGLE QUOTATION MARK}"
    line = f'He didn{apostrophe}t pay $1,200.50 (well-known); "O\'Brien" said: No...\n'
    expected = f'he didn{apostrophe}t pay $ 1,200.50 ( well-known ) ; " o\'brien " said : no . . .'
    assert raw_words().split(line) == [*expected.split(), EOS]
    assert raw_words().split('He said, "No."\n')[:-1] == ["he", "said", ",", '"', "no", ".", '"']


def test_raw_text_loses_white_space_and_case_only() -> None:
    line = "Ünïcode — «quotes», e-mail@x.org & 3.14%\n"
    assert "".join(raw_words(lowercase=False).split(line)[:-1]) == "".join(line.split())


@pytest.mark.parametrize("pattern", ["(", r"(\w)\w*"])
def test_a_pattern_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.pattern"):
        raw_words(pattern=pattern)


def test_characters() -> None:
    tokenizer = CharTokenizer(False, None, 1)
    tokenizer.fit(["abba\n", "\n"])
    assert tokenizer.vocabulary == [EOS, "a", "b"]
    assert tokenizer.decode(tokenizer.encode(["ab ba".replace(" ", "") + "\n"])) == "abba\n"
