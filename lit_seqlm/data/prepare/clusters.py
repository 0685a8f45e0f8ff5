"""Clusters of more proteins than names fit in memory: two numbers each, in files that processes share."""

# N = proteins asked for, M = members of all clusters

import gzip
import hashlib
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lit_seqlm.errors import UserError

MEMBERS, GROUPS = "members.npy", "groups.npy"


def hash_of(name: str) -> int:
    """64 bits of a name. Of sixty million, two are the same with probability 1e-4."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def write_clusters(path: str, folder: Path) -> None:
    """Make the table of a file of clusters: about 16 bytes a protein, and twice that for the time of sorting.

    Raises:
        UserError: for a file that cannot be read, a line that is none, and a protein in two clusters.
    """
    folder.mkdir(parents=True)
    members, groups = array("Q"), array("Q")
    cluster, group = "", 0
    for one, member in _pairs(path):
        if one != cluster:
            cluster, group = one, hash_of(one)
        members.append(hash_of(member))
        groups.append(group)
    members_M, groups_M = np.frombuffer(members, np.uint64), np.frombuffer(groups, np.uint64)
    order_M = np.argsort(members_M, kind="stable")
    members_M, groups_M = members_M[order_M], groups_M[order_M]
    is_torn_M = (members_M[1:] == members_M[:-1]) & (groups_M[1:] != groups_M[:-1])
    if is_torn_M.any():
        _refuse_torn(path, int(members_M[int(np.argmax(is_torn_M))]))
    np.save(folder / MEMBERS, members_M)
    np.save(folder / GROUPS, groups_M)


@dataclass(frozen=True)
class ClusterTable:
    """Which cluster a protein is in, looked up on disk.

    Attributes:
        members_M: hashes of the names, rising.
        groups_M: of each the hash of its cluster.
    """

    members_M: np.ndarray
    groups_M: np.ndarray

    @staticmethod
    @cache
    def of(folder: str) -> "ClusterTable":
        """The table in a folder; one process maps it once."""
        place = Path(folder)
        members_M, groups_M = (np.load(place / name, mmap_mode="r") for name in (MEMBERS, GROUPS))
        return ClusterTable(members_M, groups_M)

    def groups(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Clusters (N,) of some proteins, and which of these are known."""
        hashes_N = np.array([hash_of(name) for name in names], np.uint64)
        places_N = np.minimum(np.searchsorted(self.members_M, hashes_N), len(self.members_M) - 1)
        return np.asarray(self.groups_M[places_N]), self.members_M[places_N] == hashes_N


def _pairs(path: str) -> Iterator[tuple[str, str]]:
    """Cluster and member of each line."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                cluster, _, member = line.rstrip("\r\n").partition("\t")
                if not cluster or not member or "\t" in member:
                    raise UserError(
                        f"--clusters {path}, line {number}: {line.rstrip()[:60]!r} is not a cluster's name, a tab and "
                        "one member, as mmseqs writes *_cluster.tsv."
                    )
                yield cluster, member
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"--clusters {path} cannot be read ({error}).") from None
    if not number:
        raise UserError(f"--clusters {path} is empty.")


def _refuse_torn(path: str, wanted: int) -> None:
    """Read once more, for the name of a protein in two clusters."""
    found = [pair for pair in _pairs(path) if hash_of(pair[1]) == wanted]
    first = found[0]
    other = next(cluster for cluster, _ in found if cluster != first[0])
    raise UserError(f"--clusters {path}: {first[1]} is in two clusters, {first[0]} and {other}.")
