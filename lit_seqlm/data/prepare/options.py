"""What a prepared corpus is made from, and how."""

from dataclasses import dataclass
from pathlib import Path

from lit_seqlm.errors import UserError

MAX_LEN = 2**16 - 3  # with begin and end, a length of two bytes


@dataclass(frozen=True)
class Options:
    """What decides the content of a prepared corpus, and where it comes from and goes to.

    Attributes:
        inputs: files as `chemistry.rows.read_rows` takes them; ``-`` is standard input.
        output: a folder that is not there yet.
        column: of the SMILES, in files that have columns.
        isomeric: keep stereo marks.
        min_len, max_len: tokens of a molecule, without begin and end; others are dropped.
        vocabulary: a file with one token a line; null builds one.
        min_count: a rarer token does not enter a vocabulary that is built, and its molecules are dropped.
        holdout: share of the molecules that go to validation.
        max_holdout: molecules of validation, at most.
        shard_molecules: molecules of one file.
        workers: processes; the content does not depend on it.
    """

    inputs: tuple[str, ...]
    output: Path
    column: str
    isomeric: bool
    min_len: int
    max_len: int
    vocabulary: str | None
    min_count: int
    holdout: float
    max_holdout: int
    shard_molecules: int
    workers: int

    def check(self) -> None:
        """Raise UserError for values that cannot be, before any work is done."""
        for name in ("min_len", "min_count", "max_holdout", "shard_molecules", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} {getattr(self, name)}: it must be at least 1.")
        if not self.min_len <= self.max_len <= MAX_LEN:
            raise UserError(
                f"--max-len {self.max_len}: it must be {self.min_len} or more, and {MAX_LEN:,} at most."
            )
        if not 0 <= self.holdout < 1:
            raise UserError(f"--holdout {self.holdout}: a share from 0 to below 1, such as 0.001.")
        if self.inputs.count("-") > 1:
            raise UserError("- is given twice: standard input can be read once.")

    @property
    def names(self) -> list[str]:
        """The inputs without their folders where that tells them apart, so that a copy gives the same bytes."""
        names = [Path(path).name for path in self.inputs]
        return names if len(set(names)) == len(names) else list(self.inputs)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
