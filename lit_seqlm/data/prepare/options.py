"""What a prepared corpus is made from, and how."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lit_seqlm.data.prepare.holdout import ByCluster, ByHash, ByList, HoldOut
from lit_seqlm.data.prepare.kinds import Kind
from lit_seqlm.data.prepare.molecules import Molecules
from lit_seqlm.data.prepare.proteins import Proteins
from lit_seqlm.errors import UserError

MAX_LEN = 2**16 - 3  # with begin and end, a length of two bytes


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(ABC):
    """What decides the content of any prepared corpus, and where it comes from and goes to.

    Attributes:
        inputs: files; which, `kind` says.
        output: a folder that is not there yet.
        min_len, max_len: tokens of a sequence, without begin and end.
        holdout: share of the sequences that is not trained on.
        max_holdout: so many of them, at most.
        workers: processes; the content does not depend on it.
    """

    inputs: tuple[str, ...]
    output: Path
    min_len: int
    max_len: int
    holdout: float
    max_holdout: int
    workers: int

    at_least_one: ClassVar[tuple[str, ...]] = ("min_len", "max_holdout", "workers")

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What a row becomes."""

    @property
    @abstractmethod
    def shard_size(self) -> int:
        """Sequences of one file."""

    @property
    def hold_out(self) -> HoldOut:
        """What is not trained on."""
        return ByHash(self.holdout, self.max_holdout)

    def check(self) -> None:
        """Raise UserError for values that cannot be, before any work is done."""
        for name in self.at_least_one:
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} {getattr(self, name)}: it must be at least 1.")
        if not self.min_len <= self.max_len <= MAX_LEN:
            raise UserError(
                f"--max-len {self.max_len}: it must be {self.min_len} or more, and {MAX_LEN:,} at most."
            )
        if self.inputs.count("-") > 1:
            raise UserError("- is given twice: standard input can be read once.")
        self.hold_out.check()
        self.kind.check(self.inputs)

    @property
    def names(self) -> list[str]:
        """The inputs without their folders where that tells them apart, so that a copy gives the same bytes."""
        names = [Path(path).name for path in self.inputs]
        return names if len(set(names)) == len(names) else list(self.inputs)


@dataclass(frozen=True, kw_only=True)
class Options(CorpusOptions):
    """A corpus of molecules, in files as `chemistry.rows.read_rows` takes them; ``-`` is standard input.

    Attributes:
        column, isomeric, min_count: see `Molecules`.
        vocabulary: a file with one token a line; null builds one.
        shard_molecules: molecules of one file.
    """

    column: str
    isomeric: bool
    vocabulary: str | None
    min_count: int
    shard_molecules: int

    at_least_one: ClassVar[tuple[str, ...]] = (
        *CorpusOptions.at_least_one, "min_count", "shard_molecules"
    )  # fmt: skip

    @property
    def kind(self) -> Molecules:
        return Molecules(
            self.min_len,
            self.max_len,
            self.column,
            self.isomeric,
            self.vocabulary,
            self.min_count,
        )

    @property
    def shard_size(self) -> int:
        return self.shard_molecules


@dataclass(frozen=True, kw_only=True)
class ProteinOptions(CorpusOptions):
    """A corpus of proteins, in files as `proteins.sources.read_records` takes them.

    Attributes:
        column, over_long, ends, ambiguous, gapped: see `Proteins`.
        clusters: a file of clusters, to hold out whole ones; see `ByCluster`.
        split: a list of what is held out, instead of a share; see `ByList`.
        shard_proteins: proteins of one file.
    """

    column: str | None
    over_long: str
    ends: str
    ambiguous: str
    gapped: bool
    clusters: str | None
    split: str | None
    shard_proteins: int

    at_least_one: ClassVar[tuple[str, ...]] = (*CorpusOptions.at_least_one, "shard_proteins")

    @property
    def kind(self) -> Proteins:
        return Proteins(
            self.min_len,
            self.max_len,
            self.column,
            self.over_long,
            self.ends,
            self.ambiguous,
            self.gapped,
        )

    @property
    def shard_size(self) -> int:
        return self.shard_proteins

    @property
    def hold_out(self) -> HoldOut:
        if self.clusters is not None and self.split is not None:
            raise UserError("--clusters and --split: both say what is held out. Give one of them.")
        if self.split is not None:
            return ByList(self.split, self.min_len, self.max_len, self.over_long)
        if self.clusters is not None:
            return ByCluster(self.holdout, self.max_holdout, self.clusters)
        return super().hold_out


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
