"""Which sequences of a corpus are not trained on: drawn by their hash, by whole clusters, or named by a list."""

# N = sequences

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from lit_seqlm.data.prepare.clusters import ClusterTable, write_clusters
from lit_seqlm.data.proteins.split_lists import SplitList, accession_hash, read_split_list
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

LAST = 2**64 - 1  # no share is above it


class HoldOut(ABC):
    """Gives each sequence a number of 64 bits, its group: what is held out is below an edge.

    Sequences of one group stay together. Small: it travels to every process.
    """

    @abstractmethod
    def check(self) -> None:
        """Raise UserError before any work is done, for what cannot be."""

    def begin(self, folder: Path) -> "HoldOut":
        """Ready for work, with what it needs in a folder of its own."""
        return self

    @abstractmethod
    def check_inputs(self, digests: Mapping[str, str | None]) -> None:
        """Raise UserError for other files than those it was made for, before they are read.

        Args:
            digests: SHA-256 of each file, by its name; null where it is not known.
        """

    @abstractmethod
    def groups(self, names: Sequence[str], sides_N: np.ndarray) -> np.ndarray:
        """Of some sequences, uint64.

        Args:
            sides_N: of each a number that follows from its content, as good as drawn.
        """

    @property
    def num_listed(self) -> int:
        """How many sequences a list names."""
        return 0

    def listed(self, names: Sequence[str]) -> set[str]:
        """What stands in that list for some of these names."""
        return set()

    def check_used(self, listed: set[str], corpus: str) -> None:
        """Raise UserError if the corpus lacks some of the list: it was made for another one."""
        missing = self.num_listed - len(listed)
        if missing:
            raise UserError(
                f"--split: {corpus} lacks {missing:,} of the {self.num_listed:,} proteins that the list holds out: it "
                "was made for another corpus. Make one with python experiments/split_proteins.py."
            )

    @abstractmethod
    def candidates(self, groups_N: np.ndarray) -> np.ndarray:
        """Of groups, those that a later bound on their number may spare."""

    @abstractmethod
    def edges(self, candidates: np.ndarray, num_held_out: int) -> list[int]:
        """For each split that is held out, the number below which its groups lie; they rise.

        Args:
            candidates: of the whole corpus.
        """

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What a manifest says of it."""


@dataclass(frozen=True)
class ByHash(HoldOut):
    """A share of the sequences, each by itself. None changes sides when the corpus grows.

    Attributes:
        share: of all.
        at_most: so many, whatever the share.
    """

    share: float
    at_most: int

    def check(self) -> None:
        if not 0 <= self.share < 1:
            raise UserError(f"--holdout {self.share}: a share from 0 to below 1, such as 0.001.")

    def check_inputs(self, digests: Mapping[str, str | None]) -> None:
        """A share can be drawn of any."""

    def groups(self, names: Sequence[str], sides_N: np.ndarray) -> np.ndarray:
        return sides_N

    def candidates(self, groups_N: np.ndarray) -> np.ndarray:
        return groups_N[groups_N < np.uint64(self.limit)]

    def edges(self, candidates: np.ndarray, num_held_out: int) -> list[int]:
        limit = self.limit
        if len(candidates) > self.at_most:
            limit = int(np.sort(candidates)[self.at_most])
        return [limit * part // num_held_out for part in range(1, num_held_out + 1)]

    def described(self) -> dict[str, Any]:
        return {"share": self.share, "at_most": self.at_most}

    @property
    def limit(self) -> int:
        """The number below which so large a share of all 64-bit numbers lies."""
        return int(self.share * 2**64)


@dataclass(frozen=True)
class ByCluster(ByHash):
    """A share of the clusters, whole: nothing held out has a relative, as the clustering sees it, that is trained on.

    Attributes:
        path: lines of a cluster's name, a tab and a member, as mmseqs writes ``*_cluster.tsv``; also ``.gz``.
        folder: of the table that is made of it.
    """

    path: str
    folder: str = ""

    def check(self) -> None:
        super().check()
        if not Path(self.path).is_file():
            raise UserError(f"--clusters {self.path}: there is no such file.")

    def begin(self, folder: Path) -> "ByCluster":
        table = folder / secrets.token_hex(
            8
        )  # a name of its own, since processes keep tables by it
        write_clusters(self.path, table)
        return replace(self, folder=str(table))

    def groups(self, names: Sequence[str], sides_N: np.ndarray) -> np.ndarray:
        groups_N, is_known_N = ClusterTable.of(self.folder).groups(names)
        if not is_known_N.all():
            raise UserError(
                f"--clusters {self.path}: {names[int(np.argmin(is_known_N))]} is in no cluster. Cluster the very files "
                "that the corpus is made of: mmseqs easy-linclust FILES clusters work."
            )
        return groups_N

    def described(self) -> dict[str, Any]:
        said = {"clusters": Path(self.path).name, "sha256": pooch.file_hash(self.path)}
        return {**super().described(), **said}


@dataclass(frozen=True)
class ByList(HoldOut):
    """What a list of `experiments/split_proteins.py` names; all else is trained on.

    Attributes:
        name: of a list that the program brings along, or a file.
        min_len, max_len, over_long: of what is trained on; see `Proteins`.
    """

    name: str
    min_len: int
    max_len: int
    over_long: str

    def check(self) -> None:
        """A list that was made of proteins of any length knows the relatives among the short ones, too."""
        split_list = self._list()
        said = split_list.made.get("max_len", "None")
        if self.over_long == "truncate" and said != "None":
            raise UserError(
                f"--over-long truncate: the list of what is held out was made for max_len={said}, so relatives of a "
                "test protein may be among the longer ones, whose beginnings would be trained on. Say --over-long drop."
            )
        max_len = None if said == "None" else self.max_len
        split_list.check_lengths(self.min_len, max_len, "--{flag} ")

    def check_inputs(self, digests: Mapping[str, str | None]) -> None:
        split_list, names = self._list(), ", ".join(digests)
        if "sha256" not in split_list.made:
            log.warning(
                "--split %s: the list does not say which file it was made for, so it cannot be checked whether "
                "relatives of what it holds out are among the others of %s",
                self.name,
                names,
            )
        elif len(digests) > 1:
            raise UserError(
                f"--split {self.name}: the list was made for one file ({split_list.made.get('corpus', 'unnamed')}), "
                f"and these are {len(digests)}: {names}. Relatives of what it holds out may be in the others and be "
                "trained on. Put them into one file, and make a list of that with python experiments/split_proteins.py."
            )
        for name, sha256 in digests.items():
            split_list.check_source(name, sha256 or "")

    def groups(self, names: Sequence[str], sides_N: np.ndarray) -> np.ndarray:
        number = {"valid": 0, "test": 1, "train": LAST}
        split_list = self._list()
        return np.array([number[split_list.split_of(name)] for name in names], np.uint64)

    @property
    def num_listed(self) -> int:
        return len(self._list().split_of_hash)

    def listed(self, names: Sequence[str]) -> set[str]:
        return self._list().split_of_hash.keys() & {accession_hash(name) for name in names}

    def candidates(self, groups_N: np.ndarray) -> np.ndarray:
        return groups_N[:0]

    def edges(self, candidates: np.ndarray, num_held_out: int) -> list[int]:
        return [1, 2]

    def described(self) -> dict[str, Any]:
        return {"split": Path(self.name).name, "digest": self._list().digest()}

    def _list(self) -> SplitList:
        return read_split_list(self.name)
