"""n-grams against a dictionary and a loop, closed forms, and the whole Swiss-Prot sample."""

import gzip
import math
import os
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from lit_seqlm.errors import UserError
from lit_seqlm.metrics import ngram
from lit_seqlm.metrics.letters import Alphabet, chunks, ngram_counts, sum_of_absolute_errors
from lit_seqlm.metrics.ngram import TwoSided, WittenBell, score
from lit_seqlm.tokenizer.amino_acid import RESIDUES, STANDARD

FEW = Alphabet("abcd", "abc")
PROTEINS = Alphabet(RESIDUES, STANDARD)


def texts(num: int, seed: int, letters: str = "abcd") -> list[str]:
    """Letters that depend on the one before, of lengths from 1."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(len(letters), 0.5), len(letters))
    found = []
    for _ in range(num):
        text = [int(generator.integers(len(letters)))]
        while generator.random() < 0.9:
            text.append(int(generator.choice(len(letters), p=weights[text[-1]])))
        found.append("".join(letters[i] for i in text))
    return found


class Loop:
    """The definition, one context at a time; ``>`` stands before a sequence and ``.`` is its end."""

    def __init__(self, letters: str, order: int, sequences: list[str]):
        self.symbols = letters + "."
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        for sequence in sequences:
            line = ">" * (order - 1) + sequence + "."
            for place in range(order - 1, len(line)):
                for n in range(order):
                    self.counts[line[place - n : place]][line[place]] += 1

    def __call__(self, symbol: str, context: str) -> float:
        seen = self.counts.get(context, Counter())
        lower = self(symbol, context[1:]) if context else 1 / len(self.symbols)
        if not seen:
            return lower
        return (seen[symbol] + len(seen) * lower) / (seen.total() + len(seen))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_a_loop_over_contexts(order: int) -> None:
    train, test = texts(30, 0), texts(10, 1)
    model, loop = WittenBell(FEW, 4, train), Loop(FEW.letters, 4, train)
    among_letters, with_end, standard, hits, expected = [], [], [], [], []
    for sequence in test:
        line = ">" * (order - 1) + sequence + "."
        for place in range(order - 1, len(line)):
            context = line[place - order + 1 : place]
            p = {symbol: loop(symbol, context) for symbol in loop.symbols}
            assert sum(p.values()) == pytest.approx(1)
            true = line[place]
            with_end.append(-math.log(p[true]))
            if true == ".":
                continue
            among = {letter: p[letter] / (1 - p["."]) for letter in FEW.letters}
            among_letters.append(-math.log(among[true]))
            expected.append(among[true])
            best = [letter for letter in among if among[letter] == max(among.values())]
            hits.append((true in best) / len(best))
            if true in FEW.standard:
                standard.append(math.log(sum(among[one] for one in FEW.standard) / among[true]))
    found = score(model, order, test, seed=0)
    assert found["ppl"] == pytest.approx(math.exp(np.mean(among_letters)))
    assert found["ppl_with_end"] == pytest.approx(math.exp(np.mean(with_end)))
    assert found["ppl_standard"] == pytest.approx(math.exp(np.mean(standard)))
    assert found["accuracy"] == pytest.approx(np.mean(hits))
    assert found["expected_accuracy"] == pytest.approx(np.mean(expected))
    assert found["ppl_low"] <= found["ppl"] <= found["ppl_high"]


@pytest.mark.parametrize("reach", [1, 2])
def test_both_sides_equal_a_loop(reach: int) -> None:
    train, test = texts(30, 2), texts(10, 3)
    forward = Loop(FEW.letters, reach + 1, train)
    backward = Loop(FEW.letters, reach + 1, [text[::-1] for text in train])
    nll = []
    for sequence in test:
        line = ">" * reach + sequence + ">" * reach
        for place in range(reach, len(line) - reach):
            left, right = line[place - reach : place], line[place + 1 : place + 1 + reach][::-1]
            p = {a: forward(a, left) * backward(a, right) / forward(a, "") for a in FEW.letters}
            nll.append(-math.log(p[line[place]] / sum(p.values())))
    found = score(TwoSided.of(FEW, reach, train), reach + 1, test, seed=0)
    assert found["ppl"] == pytest.approx(math.exp(np.mean(nll)))
    assert "ppl_with_end" not in found


def test_every_context_has_a_distribution() -> None:
    model = WittenBell(FEW, 4, texts(20, 4))
    for order, table in enumerate(model.tables):
        assert table.shape == (FEW.base ** max(order - 1, 0), FEW.base - 1)
        np.testing.assert_allclose(table.sum(1), 1)
        assert (table > 0).all()


def test_uniform_is_exactly_the_number_of_letters() -> None:
    found = score(WittenBell(PROTEINS, 1, ["ACDX"]), 0, ["MKVLAAGXB", "W"], seed=0)
    assert found["ppl"] == pytest.approx(25, abs=1e-12)
    assert found["ppl_standard"] == pytest.approx(20, abs=1e-12)
    assert found["ppl_beside_end"] == pytest.approx(26, abs=1e-12)
    assert found["ppl_with_end"] == pytest.approx(26, abs=1e-12)
    assert found["accuracy"] == pytest.approx(1 / 25)
    assert found["expected_accuracy"] == pytest.approx(1 / 25)


def test_unigram_closed_form() -> None:
    """Counts a 3, b 1, end 2, T = 3, uniform 1/5: p(a) = (3 + 3/5) / 9, p(b) = (1 + 3/5) / 9, p(c) = (3/5) / 9."""
    found = score(WittenBell(FEW, 1, ["aab", "a"]), 1, ["abc"], seed=0)
    inner = 1 - (2 + 3 / 5) / 9
    p = np.array([3.6, 1.6, 0.6]) / 9
    assert found["ppl"] == pytest.approx(math.exp(-np.log(p / inner).mean()))
    assert found["ppl_beside_end"] == pytest.approx(math.exp(-np.log(p).mean()))
    assert found["accuracy"] == pytest.approx(1 / 3)


def test_order_of_sequences_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = texts(30, 5), texts(20, 6)
    whole = [
        score(WittenBell(FEW, 3, train), 3, test, 0),
        score(TwoSided.of(FEW, 1, train), 2, test, 0),
    ]
    monkeypatch.setattr(ngram, "CHUNK", 7)
    monkeypatch.setattr(ngram, "COUNTED", 5)
    turned = train[::-1]
    again = [
        score(WittenBell(FEW, 3, turned), 3, test, 0),
        score(TwoSided.of(FEW, 1, turned), 2, test, 0),
    ]
    for first, second in zip(whole, again, strict=True):
        assert first == pytest.approx(second, abs=1e-12)


def test_reading_what_was_counted_is_easier() -> None:
    train, others = texts(200, 7), texts(50, 7)
    assert (
        score(WittenBell(FEW, 2, train), 2, others, 0)["ppl"]
        < score(WittenBell(FEW, 2, train), 1, others, 0)["ppl"]
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WittenBell(FEW, 6, ["a"]), "1 to 5"),
        (lambda: WittenBell(FEW, 0, ["a"]), "1 to 5"),
        (lambda: WittenBell(FEW, 1, []), "no sequences"),
        (lambda: WittenBell(PROTEINS, 1, ["MKV", "AJC"]), "sequence 2: 'J' at position 2"),
        (lambda: WittenBell(PROTEINS, 1, ["MKV", "", "Ä"]), "sequence 3: 'Ä' at position 1"),
        (lambda: score(WittenBell(FEW, 1, ["a"]), 1, [], 0), "no letter"),
        (lambda: score(WittenBell(FEW, 1, ["a"]), 1, ["", ""], 0), "no letter"),
    ],
)
def test_what_cannot_be_is_refused(make: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()  # type: ignore[operator]


def test_one_letter_and_an_empty_sequence_beside_it() -> None:
    found = score(WittenBell(FEW, 5, ["a", "", "b"]), 5, ["", "a"], seed=0)
    assert math.isfinite(found["ppl"])
    assert math.isnan(found["ppl_low"])  # one sequence with letters has no interval


def test_ngram_counts_equal_slices() -> None:
    sequences = [*texts(20, 8), "", "ab", "abc"]
    counts = ngram_counts(FEW, 3, sequences)
    loop = Counter(text[i : i + 3] for text in sequences for i in range(len(text) - 2))
    for number, letters in enumerate(product(FEW.letters, repeat=3)):
        assert counts[number] == loop["".join(letters)]


def test_sae_is_nothing_for_the_same_and_two_for_strangers() -> None:
    first, second = ngram_counts(FEW, 3, ["aaaaaa"]), ngram_counts(FEW, 3, ["bbbb"])
    assert sum_of_absolute_errors(first, first * 2) == 0
    assert sum_of_absolute_errors(first, second) == 2
    assert sum_of_absolute_errors(first, ngram_counts(FEW, 3, ["ab"])) is None


def test_chunks_keep_every_sequence_in_its_place() -> None:
    sequences = [*texts(50, 9), "a" * 100, "", "b"]
    parts = list(chunks(sequences, 20))
    assert [text for part in parts for text in part] == sequences
    assert all(len(part) == 1 or sum(map(len, part)) <= 20 for part in parts)


@pytest.mark.data
@pytest.mark.skipif("LIT_SEQLM_DATA" not in os.environ, reason="LIT_SEQLM_DATA is unset")
def test_composition_of_swiss_prot() -> None:
    """Of the whole of it 17.96, .0967 and .0599 were measured; the sample is a fifth of it."""
    folder = Path(os.environ["LIT_SEQLM_DATA"]) / "proteins" / "swissprot_go"
    with gzip.open(folder / "swissprot_go_201401_sample100k.tsv.gz", "rt") as file:
        next(file)
        counts = Counter()
        for line in file:
            counts.update(line.split("\t", 2)[1])
    p = np.array([counts[letter] for letter in STANDARD], float)
    p /= p.sum()
    assert math.exp(-(p * np.log(p)).sum()) == pytest.approx(17.96, abs=0.02)
    assert p.max() == pytest.approx(0.0967, abs=0.001)
    assert (p**2).sum() == pytest.approx(0.0599, abs=0.0003)
