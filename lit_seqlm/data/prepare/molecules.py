"""Rows that are molecules: canonical SMILES, under a vocabulary that is given or built."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_seqlm.data.chemistry.canonical import canonicalize, version
from lit_seqlm.data.chemistry.rows import STDIN, read_rows
from lit_seqlm.data.prepare.kinds import Finding, Kind, Written
from lit_seqlm.data.prepare.pieces import count_bytes
from lit_seqlm.tokenizer.smiles import SmilesTokenizer
from lit_seqlm.tokenizer.smiles_vocabulary import (
    build_vocabulary,
    digest,
    is_official,
    read_vocabulary,
)


@dataclass(frozen=True)
class Molecules(Kind):
    """Files as `chemistry.rows.read_rows` takes them.

    Attributes:
        column: of the SMILES, in files that have columns.
        isomeric: keep stereo marks.
        given: a file with one token a line; null builds a vocabulary.
        min_count: a rarer token does not enter a vocabulary that is built, and its molecules are dropped.
    """

    column: str
    isomeric: bool
    given: str | None
    min_count: int

    noun: ClassVar[str] = "molecule"
    nouns: ClassVar[str] = "molecules"
    step: ClassVar[str] = "canonical SMILES"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid")
    has_names: ClassVar[bool] = False

    def check(self, paths: Sequence[str]) -> None:
        if self.given is not None:
            read_vocabulary(self.given)
        for path in paths:
            if path != STDIN:
                next(self.read(path), None)

    def read(self, path: str) -> Iterator[Written]:
        for row in read_rows(path, self.column, others=()):
            yield Written("", row.smiles)

    def files(self, path: str) -> list[str]:
        return [path]

    def num_rows(self, path: str) -> int:
        """A quoted field may hold more than one line."""
        if path.lower().endswith(".parquet"):
            from pyarrow.parquet import read_metadata

            return read_metadata(path).num_rows
        return count_bytes(path, b"\n")

    def examine(self, texts: Sequence[str]) -> Iterator[Finding]:
        """Drops what is empty, invalid, lossy, too short or too long."""
        tokenizer = self._tokenizer(None)
        for written in texts:
            found = canonicalize(written, self.isomeric)
            if found.smiles is None:
                yield Finding(None, found.reason)
                continue
            tokens = tokenizer.split(found.smiles)
            if "".join(tokens) != found.smiles:
                yield Finding(None, tokenizer.problems([found.smiles])[0] or "lossy")
            elif len(tokens) < self.min_len:
                yield Finding(None, f"too_short: {len(tokens)} tokens")
            elif len(tokens) > self.max_len:
                yield Finding(None, f"too_long: {len(tokens)} tokens")
            else:
                yield Finding(found.smiles)

    def count(self, texts: Sequence[str]) -> Counter[str]:
        return self._tokenizer(None).count(texts)

    def vocabulary(self, counts: Counter[str]) -> list[str]:
        if self.given is not None:
            return read_vocabulary(self.given)
        return build_vocabulary(counts, self.min_count)

    def tokenizer(self, vocabulary: str) -> SmilesTokenizer:
        return self._tokenizer(vocabulary)

    def described(self) -> dict[str, Any]:
        return {"canonical": {"rdkit": version(), "isomeric": self.isomeric}}

    def vocabulary_described(self, vocabulary: list[str]) -> dict[str, Any]:
        return {
            "size": len(vocabulary),
            "sha256": digest(vocabulary),
            "official": is_official(vocabulary),
            "min_count": self.min_count if self.given is None else None,
        }

    def _tokenizer(self, vocabulary: str | None) -> SmilesTokenizer:
        return SmilesTokenizer(vocabulary, unknown="error", isomeric=self.isomeric, min_count=1)
