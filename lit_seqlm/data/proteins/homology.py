"""MMseqs2, the tool that finds related proteins: clusters of one file, alignments between two.

It is not a dependency: what it finds is kept as lists, and a program without it reads those.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

COMMAND = "mmseqs"
METHODS = ("linclust", "cluster")
COLUMNS = "query,target,fident,qcov"
E_VALUE = "1e-3"
SHOWN_LINES = 5  # of the tool's last words


class Hit(NamedTuple):
    """One alignment of a protein with another.

    Attributes:
        identity: share of the aligned columns that hold the same letter twice.
        coverage: share of the query that is aligned.
    """

    query: str
    target: str
    identity: float
    coverage: float


def has_mmseqs() -> bool:
    return shutil.which(COMMAND) is not None


@dataclass(frozen=True)
class Mmseqs:
    """The tool, with what has to be said to have the same clusters again.

    Attributes:
        method: ``linclust``, which is fast and misses many relatives below 50 % identity, or ``cluster``, which
            searches in cascades and takes many times longer.
        min_seq_id: identity from which two proteins may share a cluster.
        coverage: share of both that has to be aligned.
        sensitivity: of a search, 1 to 7.5; clusters have the tool's own.
    """

    method: str
    min_seq_id: float
    coverage: float
    sensitivity: float
    threads: int = os.cpu_count() or 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"--method {self.method}: choose {' or '.join(METHODS)}.")
        for name, value in (("--min-seq-id", self.min_seq_id), ("--coverage", self.coverage)):
            if not 0 <= value <= 1:
                raise UserError(f"{name} {value}: a share, from 0 to 1.")
        if not 1 <= self.sensitivity <= 7.5:
            raise UserError(f"--sensitivity {self.sensitivity}: from 1 to 7.5.")

    @property
    def cluster_flags(self) -> list[str]:
        return ["--min-seq-id", f"{self.min_seq_id:g}", "-c", f"{self.coverage:g}"]

    @property
    def search_flags(self) -> list[str]:
        return ["-s", f"{self.sensitivity:g}", "-e", E_VALUE]

    def version(self) -> str:
        """UserError where the tool is not installed."""
        return _run(["version"]).strip()

    def said(self, what: str) -> str:
        """What a list's heading or a report says of how it was made: ``search``, or the method of clustering."""
        flags = self.search_flags if what == "search" else self.cluster_flags
        return " ".join([COMMAND, f"easy-{what}", *flags, f"(version {self.version()})"])

    def clusters(self, fasta: Path, folder: Path) -> Iterator[tuple[str, str]]:
        """Pairs of a cluster's name, which is that of its representative, and a member."""
        target = folder / "clusters"
        words = [f"easy-{self.method}", str(fasta), str(target), str(folder / "work")]
        _run([*words, *self.cluster_flags, *self._common()])
        yield from read_pairs(Path(f"{target}_cluster.tsv"))

    def search(self, queries: Path, targets: Path, folder: Path) -> Iterator[Hit]:
        """What the tool aligns of two FASTA files."""
        found = folder / "hits.tsv"
        words = ["easy-search", str(queries), str(targets), str(found), str(folder / "work")]
        _run([*words, "--format-output", COLUMNS, *self.search_flags, *self._common()])
        with found.open(encoding="utf-8") as file:
            for line in file:
                query, target, identity, coverage = line.rstrip("\n").split("\t")
                yield Hit(query, target, float(identity), float(coverage))

    def _common(self) -> list[str]:
        return ["--threads", str(self.threads), "-v", "2"]


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The two words of each line, as the tool and other people's lists have them, separated by a tab.

    Raises:
        UserError: for a missing file, and a line that has not two words; names it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                words = line.rstrip("\r\n").split("\t")
                if not line.strip() or line.startswith("#"):
                    continue
                if len(words) != 2 or not all(words):
                    raise UserError(
                        f"{path}, line {number}: {line.strip()[:60]!r} is not two words with a tab between them."
                    )
                yield words[0], words[1]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text.") from None


def _run(words: list[str]) -> str:
    """The tool's output. It reads no input and shows nothing of its own, but for its last words if it fails."""
    path = shutil.which(COMMAND)
    if path is None:
        raise UserError(
            "mmseqs is not installed, and it is what finds related proteins. Get it with apt-get install mmseqs2 (or "
            "conda install -c bioconda mmseqs2), or give clusters that were made elsewhere: --clusters FILE."
        )
    log.debug("%s %s", path, " ".join(words))
    done = subprocess.run(
        [path, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-SHOWN_LINES:])
        raise UserError(f"mmseqs {words[0]} ended with status {done.returncode}:\n{last}")
    return done.stdout
