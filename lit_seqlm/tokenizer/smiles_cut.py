"""Many SMILES cut into tokens at once."""

# N = molecules, L = tokens of all of them

import re
from collections.abc import Sequence

import numpy as np

# A bracket atom, an atom of two letters or one, a sign, a ring closure of two digits or one. No bracket
# reaches over the end of a line, nor over the null sign that stands for one inside a string.
PATTERN = r"\[[^\]\n\0]+]|Br?|Cl?|[NOSPFIbcnosp]|[().=#\-+\\/:~@?>*$]|%[0-9]{2}|[0-9]"
CHUNK = 8_192  # molecules that are cut at once
find = re.compile(PATTERN).findall
find_in_lines = re.compile(PATTERN + r"|\n").findall  # many molecules, a newline after each


class Cut:
    """Some strings cut into tokens, each token a number: its id, or one above all ids."""

    def __init__(self, smiles: Sequence[str], index: dict[str, int]):
        self.smiles, self.num_known = smiles, len(index)
        text = "\n".join(smiles) + "\n"
        if text.count("\n") != len(smiles):  # a newline inside a string: a sign that is no token
            text = "".join(one.replace("\n", "\0") + "\n" for one in smiles)
        numbering = _Numbering(index)
        end = numbering["\n"]
        tokens = find_in_lines(text) if smiles else []
        self.numbers_L = np.fromiter(map(numbering.__getitem__, tokens), np.int32, len(tokens))
        self.ends_N = np.flatnonzero(self.numbers_L == end)
        self.begins_N = np.concatenate([[0], self.ends_N[:-1] + 1])[: len(smiles)]
        self.num_tokens_N = self.ends_N - self.begins_N
        self._tokens, self._end = list(numbering), end
        is_unknown_L = self.numbers_L > end
        self.num_unknown = int(is_unknown_L.sum())
        self.unknown_N = self._sums(is_unknown_L)
        sizes = np.fromiter(map(len, numbering), np.int64, len(numbering))
        sizes[end] = 0
        self.lossy_N = self._sums(sizes[self.numbers_L]) != list(map(len, smiles))

    def _sums(self, values_L: np.ndarray) -> np.ndarray:
        """Of each string's tokens; its end is one of them, so that none is empty."""
        return np.add.reduceat(values_L, self.begins_N, dtype=np.int64) if self.smiles else values_L

    def first_bad(self, unknown: str) -> int | None:
        bad_N = self.lossy_N | (self.unknown_N > 0) if unknown == "error" else self.lossy_N
        return int(bad_N.argmax()) if bad_N.any() else None

    def problems(self, unknown: str) -> list[str | None]:
        found: list[str | None] = [None] * len(self.smiles)
        for row in np.flatnonzero(self.lossy_N).tolist():
            left = re.sub(PATTERN, "", self.smiles[row])
            found[row] = f"lossy: {left[:40]!r} is no token"
        for row in np.flatnonzero(~self.lossy_N & (self.unknown_N > 0)).tolist():
            numbers = self.numbers_L[self.begins_N[row] : self.ends_N[row]]
            names = dict.fromkeys(self._tokens[n] for n in numbers[numbers > self._end])
            if unknown == "error":
                found[row] = f"unknown_tokens: {' '.join(names)}"
        return found

    def counts(self) -> dict[str, int]:
        """How often each token occurs in all strings."""
        counts = np.bincount(self.numbers_L, minlength=len(self._tokens))
        counts[self._end] = 0
        return {self._tokens[i]: int(counts[i]) for i in np.flatnonzero(counts)}

    def ids(self, bos_id: int, eos_id: int, unknown_id: int) -> np.ndarray:
        """uint16, with ``<bos>`` and ``<eos>`` around each string."""
        table = np.arange(len(self._tokens))
        table[self.num_known :] = unknown_id
        table[self._end] = eos_id
        return np.insert(table.astype(np.uint16)[self.numbers_L], self.begins_N, bos_id)


class _Numbering(dict[str, int]):
    """A vocabulary that gives each token outside it a number of its own."""

    def __missing__(self, token: str) -> int:
        self[token] = number = len(self)
        return number
