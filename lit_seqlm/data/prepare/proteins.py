"""Rows that are proteins: clean sequences of residues, under a table of tokens that never changes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lit_seqlm.data.prepare.kinds import Finding, Kind, Written
from lit_seqlm.data.prepare.pieces import count_bytes
from lit_seqlm.data.proteins.blast import ENDINGS
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.data.proteins.sources import FASTA, FLAT, LISTS, has_columns, read_records
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import RESIDUES, AminoAcidTokenizer

OVER_LONG = ("drop", "truncate")
LINES = (*LISTS, ".csv", ".tsv", ".jsonl")
LOCK = "lock.mdb"  # LMDB's, which reading changes
LOWER, TRUNCATED = "lower_case", "truncated"


@dataclass(frozen=True)
class Proteins(Kind):
    """Files as `proteins.sources.read_records` takes them.

    Attributes:
        column: of the sequences, in files that have columns or keys; null: what such files usually call it.
        over_long: what becomes of a sequence of more than `max_len` residues: ``drop``, or ``truncate``.
        ends, ambiguous, gapped: see `AminoAcidTokenizer`.
    """

    column: str | None
    over_long: str
    ends: str
    ambiguous: str
    gapped: bool

    noun: ClassVar[str] = "protein"
    nouns: ClassVar[str] = "proteins"
    step: ClassVar[str] = "clean sequences"
    splits: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    has_names: ClassVar[bool] = True

    def check(self, paths: Sequence[str]) -> None:
        if self.over_long not in OVER_LONG:
            raise UserError(f"--over-long {self.over_long}: choose {' or '.join(OVER_LONG)}.")
        self.tokenizer("")
        if self.column is not None and not any(map(has_columns, paths)):
            raise UserError(f"--column {self.column}: none of the files has columns. Leave it out.")
        for path in paths:
            next(self.read(path), None)

    def read(self, path: str) -> Iterator[Written]:
        for record in read_records(path, self.column):
            yield Written(" ".join(record.name.split()), record.sequence)

    def files(self, path: str) -> list[str]:
        """A data base is a folder, or files of one name with different endings."""
        place = Path(path)
        if place.is_file() and place.suffix not in ENDINGS:
            return [path]
        stem = place.stem if place.suffix in ENDINGS else place.name
        inside = place.rglob("*") if place.is_dir() else place.parent.glob(f"{stem}.*")
        return sorted(str(one) for one in inside if one.is_file() and one.name != LOCK)

    def num_rows(self, path: str) -> int | None:
        name = path.lower().removesuffix(".gz")
        if name.endswith(FASTA):
            return count_bytes(path, b">")
        if name.endswith(FLAT):
            return count_bytes(path, b"\n//")
        return count_bytes(path, b"\n") if name.endswith(LINES) else None

    def examine(self, texts: Sequence[str]) -> Iterator[Finding]:
        """Drops what is empty or illegal, has too few residues or, as the policies say, too many or ambiguous ones."""
        for written in texts:
            found = clean(written, self.ambiguous, self.gapped, to_type="")
            changes = (LOWER,) if found.lowered else ()
            if found.sequence is None:
                reason = "empty" if found.status == "empty" else f"{found.status}: {found.reason}"
                yield Finding(None, reason)
            elif len(found.sequence) < self.min_len:
                yield Finding(None, f"too_short: {len(found.sequence)} residues")
            elif len(found.sequence) <= self.max_len:
                yield Finding(found.sequence, "", changes)
            elif self.over_long == "drop":
                yield Finding(None, f"too_long: {len(found.sequence)} residues")
            else:
                yield Finding(found.sequence[: self.max_len], "", (*changes, TRUNCATED))

    def count(self, texts: Sequence[str]) -> Counter[str]:
        letters = np.frombuffer("".join(texts).encode("ascii"), np.uint8)
        counts = np.bincount(letters, minlength=128).tolist()
        return Counter({letter: counts[ord(letter)] for letter in RESIDUES if counts[ord(letter)]})

    def vocabulary(self, counts: Counter[str]) -> list[str]:
        return list(self.tokenizer("").vocabulary)

    def tokenizer(self, vocabulary: str) -> AminoAcidTokenizer:
        return AminoAcidTokenizer(self.ends, self.ambiguous, self.gapped)

    def problems(self, tokenizer: Any, texts: Sequence[str]) -> list[str | None]:
        """None: what is clean can be written."""
        return [None] * len(texts)

    def described(self) -> dict[str, Any]:
        how = {"ends": self.ends, "ambiguous": self.ambiguous, "gapped": self.gapped}
        return {"kind": self.noun, "tokenizer": how, "over_long": self.over_long}

    def vocabulary_described(self, vocabulary: list[str]) -> dict[str, Any]:
        text = "".join(f"{token}\n" for token in vocabulary)
        return {"size": len(vocabulary), "sha256": sha256(text.encode()).hexdigest()}
