"""Other conventions and orders of real text: words, sentences, documents, cuts."""

import gzip
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_seqlm.data.corpus import SPLITS, Corpus
from lit_seqlm.data.restyle import Restyled, as_ptb, as_wikitext, split_sentences
from lit_seqlm.errors import UserError

DOCUMENTS = [
    [" = Ships = \n", "\n", " The ship sank . Why ? \n", " No one knows \n"],
    ["\n"],
    [" Another Ship , of 1 @,@ 000 tons , sailed . It came home ! \n", "\n"],
]


class Documents:
    """The same documents in every split."""

    name = "documents"

    def __init__(self, documents: list[list[str]]):
        self.held, self.fetched = documents, False

    def digest(self) -> str:
        return "seal"

    def fetch(self) -> None:
        self.fetched = True

    def lines(self, split: str) -> Iterator[str]:
        return (line for document in self.held for line in document)

    def documents(self, split: str) -> Iterator[list[str]]:
        return iter(self.held)


def restyled(documents: list[list[str]] = DOCUMENTS, **changes: Any) -> Restyled:
    options: dict[str, Any] = {
        "style": "kept",
        "order": "documents",
        "blank_lines": "kept",
        "max_tokens": None,
        "seed": 0,
    }
    return Restyled(Documents(documents), **{**options, **changes})


def tokens(lines: Iterator[str] | list[str]) -> list[str]:
    return [word for line in lines for word in [*line.split(), "<eos>"]]


def test_kept_and_lower_change_nothing_else() -> None:
    lines = [line for document in DOCUMENTS for line in document]
    assert list(restyled().lines("test")) == lines
    assert list(restyled().documents("test")) == DOCUMENTS
    assert list(restyled(style="lower").lines("test")) == [line.lower() for line in lines]


def test_it_is_its_source_in_name_digest_and_fetching() -> None:
    source = restyled()
    source.fetch()
    assert source.source.fetched
    assert (source.name, source.digest()) == ("documents", "seal")


@pytest.mark.parametrize("style", ["kept", "lower", "ptb", "wikitext"])
@pytest.mark.parametrize("blank_lines", ["kept", "dropped"])
@pytest.mark.parametrize("order", ["documents", "sentences"])
@pytest.mark.parametrize("max_tokens", [None, 6, 17])
def test_documents_are_the_lines_and_orders_share_their_tokens(
    style: str, blank_lines: str, order: str, max_tokens: int | None
) -> None:
    source = restyled(style=style, blank_lines=blank_lines, order=order, max_tokens=max_tokens)
    lines = list(source.lines("valid"))
    documents = list(source.documents("valid"))
    assert [line for document in documents for line in document] == lines
    assert all(documents)
    assert all(line.endswith("\n") and "\n" not in line[:-1] for line in lines)
    assert (blank_lines == "dropped") <= all(line.strip() for line in lines)
    ordered = restyled(style=style, blank_lines=blank_lines, max_tokens=max_tokens)
    assert Counter(tokens(lines)) == Counter(tokens(ordered.lines("valid")))
    if max_tokens:
        assert len(tokens(lines)) <= max_tokens
    if order == "sentences":
        assert len(documents) == 1


def test_a_cut_is_after_the_last_line_that_fits() -> None:
    kept = [line for document in DOCUMENTS for line in document]
    sizes = np.cumsum([len(line.split()) + 1 for line in kept])
    for most in range(sizes[0], sizes[-1] + 2):
        expected = kept[: int(np.searchsorted(sizes, most, side="right"))]
        assert list(restyled(max_tokens=int(most)).lines("test")) == expected


def test_shuffled_sentences_are_whole_seeded_and_differ_by_split() -> None:
    document = [[f"a{n} b{n} . c{n} d{n} ! e{n}\n" for n in range(50)]]
    sentences = {f"a{n} b{n} ." for n in range(50)} | {f"c{n} d{n} !" for n in range(50)}
    found = {}
    for seed in (0, 1):
        source = restyled(document, order="sentences", seed=seed)
        for split in SPLITS:
            found[seed, split] = text = "".join(source.lines(split))
            assert all(sentence in text for sentence in sentences)
            assert all(f"e{n}\n" in text for n in range(50)), "<eos> moves with its sentence"
        assert "".join(source.lines("test")) == found[seed, "test"]
    assert len(set(found.values())) == 6
    first = [word for word in found[0, "test"].split() if word.startswith("a")]
    assert first != sorted(first, key=lambda word: int(word[1:]))


def test_sentences_of_tokenised_and_of_raw_lines() -> None:
    assert [len(s) for s in split_sentences("He went . Why ? find out . . . The U.S. won")] == [
        3,
        2,
        5,
        3,
    ]
    raw = 'Mr. J. Smith of Acme Corp. said "Never." Then he left. The U.S. grew 3.5 pct! (So?) Yes'
    assert [" ".join(words) for words in split_sentences(raw)] == [
        'Mr. J. Smith of Acme Corp. said "Never."',
        "Then he left.",
        "The U.S. grew 3.5 pct!",
        "(So?)",
        "Yes",
    ]
    assert split_sentences(" \n") == []


@pytest.mark.parametrize(
    ("raw", "wikitext", "ptb"),
    [
        (
            "Arrivals were 155,221 bags (of 60 kilos), he said.",
            "Arrivals were 155 @,@ 221 bags ( of 60 kilos ) , he said .",
            ["arrivals were N bags of N kilos he said"],
        ),
        (
            "The company's profit didn't rise 3.5% to $10 mln. \"It can't,\" they're told.",
            "The company 's profit didn 't rise 3 @.@ 5 % to $ 10 mln . \" It can 't , \" they 're told .",
            [
                "the company 's profit did n't rise N N to $ N mln",
                "it ca n't they 're told",
            ],
        ),
        (
            "Mr. O'Brien, a well-known U.S. lawyer, sold his clients' shares in AT&T Inc.",
            "Mr. O 'Brien , a well @-@ known U.S. lawyer , sold his clients ' shares in AT & T Inc. .",
            ["mr. o'brien a well-known u.s. lawyer sold his clients ' shares in at&t inc."],
        ),
        (  # tokenised already
            "Atlanta's `` new '' mayor , Ivan Allen Jr. , won . He can't lose , in 1961 .",
            "Atlanta 's \" new \" mayor , Ivan Allen Jr. , won . He can 't lose , in 1961 .",
            ["atlanta 's new mayor ivan allen jr. won", "he ca n't lose in N"],
        ),
        (  # WikiText
            "He didn 't star in 1 @,@ 500 co @-@ written plays by O 'Neill and <unk> @-@ <unk> .",
            "He didn 't star in 1 @,@ 500 co @-@ written plays by O 'Neill and <unk> @-@ <unk> .",
            ["he did n't star in N co-written plays by o'neill and <unk>"],
        ),
        (  # Penn Treebank
            "mr. <unk> of n.v. did n't pay $ N in the '80s to the banks ' staff at at&t inc.",
            None,
            ["mr. <unk> of n.v. did n't pay $ N in the '80s to the banks ' staff at at&t inc."],
        ),
        ("-- * --", "-- * --", [""]),
        ("", "", [""]),
    ],
)
def test_conventions(raw: str, wikitext: str | None, ptb: list[str]) -> None:
    if wikitext is not None:
        assert as_wikitext(raw) == wikitext
        assert as_wikitext(wikitext) == wikitext
    assert as_ptb(raw) == ptb
    assert [again for sentence in ptb for again in as_ptb(sentence)] == ptb


def test_ptb_puts_a_sentence_on_a_line() -> None:
    source = restyled(style="ptb", blank_lines="dropped")
    assert list(source.lines("test")) == [
        "ships\n",
        "the ship sank\n",
        "why\n",
        "no one knows\n",
        "another ship of N tons sailed\n",
        "it came home\n",
    ]
    assert [len(document) for document in source.documents("test")] == [4, 2]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"style": "upper"}, "style=upper: choose kept or lower"),
        ({"order": "random"}, "order=random: choose documents or sentences"),
        ({"blank_lines": "no"}, "blank_lines=no: choose kept or dropped"),
        ({"max_tokens": 0}, "max_tokens=0: at least 1"),
        ({"max_tokens": 3}, "first line of the test text alone has 4 tokens"),
    ],
)
def test_options_that_cannot_work_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        list(restyled(**changes).lines("test"))


ROOT = Path(os.environ.get("LIT_SEQLM_DATA", "."))
CEILINGS = {  # specification, section 3: seen in the last 100, 500, 2000, 10,000 tokens
    "documents": [0.522, 0.684, 0.784, 0.863],
    "sentences": [0.431, 0.559, 0.675, 0.823],
}


def seen_within(words: list[str], windows: tuple[int, ...]) -> list[float]:
    last: dict[str, int] = {}
    distances = []
    for place, word in enumerate(words):
        distances.append(place - last[word] if word in last else len(words) + 1)
        last[word] = place
    return [sum(distance <= window for distance in distances) / len(words) for window in windows]


@pytest.mark.data
@pytest.mark.skipif(
    "LIT_SEQLM_DATA" not in os.environ,
    reason="LIT_SEQLM_DATA is unset; shared/data/README.md names it",
)
class TestRealText:
    @pytest.mark.parametrize("order", ["documents", "sentences"])
    def test_cache_ceilings_of_lower_cased_wikitext(self, order: str) -> None:
        source = Restyled(Corpus("wikitext2", str(ROOT)), "lower", order, "dropped", None, 0)
        words = tokens(source.lines("test"))
        assert len(words) == 245_569 - 1_467
        found = seen_within(words, (100, 500, 2000, 10_000))
        assert found == pytest.approx(CEILINGS[order], abs=0.001)

    def test_wikitext_and_ptb_are_as_good_as_unchanged_by_their_own_style(self) -> None:
        for path, restyle in (
            ("text/wikitext2/wiki.test.tokens", as_wikitext),
            ("text/ptb/ptb.test.txt", lambda line: " ".join(as_ptb(line))),
        ):
            lines = (ROOT / path).read_text(encoding="utf-8").split("\n")
            changed = sum(restyle(line).split() != line.split() for line in lines)
            assert changed <= 0.002 * len(lines), path

    def test_documents_are_the_articles(self) -> None:
        source = Restyled(Corpus("wikitext2", str(ROOT)), "lower", "documents", "dropped", None, 0)
        documents = list(source.documents("test"))
        assert len(documents) == 60
        assert all(document[0].startswith(" = ") for document in documents)

    @pytest.mark.parametrize(("name", "most"), [("reuters_1987", 0.15), ("state_union*", 0.08)])
    def test_raw_text_becomes_readable_for_a_treebank_model(self, name: str, most: float) -> None:
        """Less than half of the words are outside the vocabulary that are with lower case alone."""
        vocabulary = set((ROOT / "text/ptb/ptb.train.txt").read_text().split())
        (path,) = (ROOT / "text" / "domains").glob(f"{name}.txt.gz")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = [line for line in islice(file, 5000) if line.strip()]

        def share_outside(words: list[str]) -> float:
            return sum(word not in vocabulary for word in words) / len(words)

        new = share_outside([word for line in lines for s in as_ptb(line) for word in s.split()])
        raw = share_outside([word for line in lines for word in line.lower().split()])
        assert new < most
        assert raw > 2 * new
