"""A made-up text with known statistics: a corpus's twin for tests, dry runs, golden numbers."""

from collections.abc import Iterator

import numpy as np


class SyntheticText:
    """Lines of words from a seeded Markov chain: each is followed by one of `branching` others.

    A model that learns the chain reaches perplexity close to `branching`; one that learns nothing
    but word frequencies stays near the vocabulary size. Every word occurs in the training split.

    Args:
        vocab_size: words, ``<eos>`` included.
        num_tokens: tokens of the training split; validation and test have a tenth each.
        branching: successors of each word, equally likely.
        seed: of the chain and of the walks.
    """

    name = "synthetic"

    def __init__(self, vocab_size: int, num_tokens: int, branching: int, seed: int):
        self.vocab_size, self.num_tokens = vocab_size, num_tokens
        self.branching, self.seed = branching, seed

    def fetch(self) -> None:
        """Nothing to fetch."""

    def digest(self) -> str:
        return ""  # its options say all

    def lines(self, split: str) -> Iterator[str]:
        num_words = self.vocab_size - 1
        chain = np.random.default_rng(self.seed).integers(
            num_words, size=(num_words, self.branching)
        )
        rng = np.random.default_rng([self.seed, ("train", "valid", "test").index(split)])
        left = self.num_tokens if split == "train" else self.num_tokens // 10
        if split == "train":  # so that no split holds a word that training has not seen
            yield " ".join(f"w{i}" for i in range(num_words)) + "\n"
            left -= num_words + 1
        word = 0
        while left > 0:
            length = min(int(rng.integers(5, 20)), left)
            words = []
            for choice in rng.integers(self.branching, size=length - 1):
                word = int(chain[word, choice])
                words.append(f"w{word}")
            left -= length
            yield " ".join(words) + "\n"

    def documents(self, split: str) -> Iterator[list[str]]:
        """One: the chain has no beginnings."""
        yield list(self.lines(split))
