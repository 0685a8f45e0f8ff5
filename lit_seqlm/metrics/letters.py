"""Sequences as numbers, and how often their parts occur."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lit_seqlm.errors import UserError

COUNTED = 2**22  # letters counted at once


@dataclass(frozen=True)
class Alphabet:
    """Letters as numbers 0 to L - 1, then the end, then what stands before a sequence.

    Attributes:
        standard: those that `ppl_standard` is about.
    """

    letters: str
    standard: str

    @property
    def base(self) -> int:
        """Of the numbers that contexts are written as."""
        return len(self.letters) + 2

    def codes(self, sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Letters of all sequences end to end, and the length of each."""
        table = np.full(256, 255, np.uint8)
        table[np.frombuffer(self.letters.encode(), np.uint8)] = np.arange(len(self.letters))
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        joined = "".join(sequences).encode("ascii", "replace")
        codes = table[np.frombuffer(joined, np.uint8)]
        if (codes == 255).any():
            place = int(np.argmax(codes == 255))
            row = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
            position = place - int(lengths[:row].sum())
            letter = sequences[row][position]
            raise UserError(
                f"sequence {row + 1}: {letter!r} at position {position + 1} is none of {self.letters}."
            )
        return codes, lengths

    def framed(self, sequences: Sequence[str], before: int) -> tuple[np.ndarray, np.ndarray]:
        """Each sequence after `before` begins and with its end, end to end; the places that are predicted."""
        codes, lengths = self.codes(sequences)
        wide = lengths + before + 1
        ends = np.cumsum(wide) - 1
        whole = np.full(int(wide.sum()), self.base - 1, np.int64)
        starts = np.repeat(ends - lengths - np.cumsum(lengths) + lengths, lengths)
        whole[starts + np.arange(len(codes))] = codes
        whole[ends] = self.base - 2
        return whole, np.flatnonzero(whole < self.base - 1)


def ngram_counts(alphabet: Alphabet, order: int, sequences: Sequence[str]) -> np.ndarray:
    """How often each string of `order` letters occurs within sequences, (L ** order,)."""
    size = len(alphabet.letters)
    counts = np.zeros(size**order, np.int64)
    for part in chunks(sequences, COUNTED):
        codes, lengths = alphabet.codes(part)
        numbers = np.zeros(max(len(codes) - order + 1, 0), np.int64)
        for place in range(order):
            numbers = numbers * size + codes[place : place + len(numbers)]
        left_in_sequence = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(codes))
        counts += np.bincount(
            numbers[left_in_sequence[: len(numbers)] >= order], minlength=len(counts)
        )
    return counts


def sum_of_absolute_errors(first: np.ndarray, second: np.ndarray) -> float | None:
    """SAE of Madani et al. 2020: the sum of abs(f1(g) - f2(g)) over n-grams g, f relative frequencies.

    From 0 to 2; null where one side has no n-gram.
    """
    if not first.sum() or not second.sum():
        return None
    return float(np.abs(first / first.sum() - second / second.sum()).sum())


def chunks(sequences: Sequence[str], num_letters: int) -> Iterator[Sequence[str]]:
    """The sequences in their order, some at a time."""
    start = size = 0
    for place, sequence in enumerate(sequences):
        if place > start and size + len(sequence) > num_letters:
            yield sequences[start:place]
            start, size = place, 0
        size += len(sequence)
    if start < len(sequences):
        yield sequences[start:]
