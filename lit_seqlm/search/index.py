"""What an index is, and the exact one."""

# M = queries, N = keys added, R = remembered keys, D = size of a key

from typing import Protocol

import torch
from torch import Tensor

from lit_seqlm.search.exact import search_exact
from lit_seqlm.search.growing import GrowingRows
from lit_seqlm.search.neighbours import Neighbours, no_neighbours

BLOCK = 16384  # keys a matrix product sees at a time


class Index(Protocol):
    """Finds remembered keys by slot (0-based)."""

    def __len__(self) -> int: ...

    @property
    def num_bytes(self) -> int:
        """Estimate of the memory it holds."""
        ...

    def add(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        """Remember keys under distinct slots.

        A slot in use is overwritten: its old key is gone. New slots follow the last one without a gap, in any order.
        """
        ...

    def search(self, queries_MD: Tensor, k: int) -> Neighbours:
        """At most k neighbours of each query, on the queries' device."""
        ...

    def dump(self) -> dict[str, Tensor]:
        """All it remembers, as tensors."""
        ...

    def load(self, dump: dict[str, Tensor]) -> None:
        """Take over what `dump` gave."""
        ...


class VectorIndex(Index, Protocol):
    """An index that keeps the keys themselves, so that true measures can be had."""

    def exact(self, queries_MD: Tensor, k: int) -> Neighbours:
        """What an exact search over the kept keys says."""
        ...

    def rows(self, slots_N: Tensor) -> Tensor:
        """The keys (N, D) in these slots."""
        ...


class ExactIndex:
    """Compares with every key (`search_exact`); works on CPU and GPU, and follows its queries there.

    Args:
        capacity: keys there can ever be; None for no limit.
    """

    def __init__(self, metric: str, capacity: int | None):
        self.metric = metric
        self.keys = GrowingRows(capacity)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_bytes(self) -> int:
        return self.keys.num_bytes

    def add(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        self.keys.follow(keys_ND.device)
        self.keys.write(slots_N, keys_ND)

    def search(self, queries_MD: Tensor, k: int) -> Neighbours:
        if not len(self):
            return no_neighbours(queries_MD)
        return search_exact(queries_MD, self.on(queries_MD.device), k, self.metric, BLOCK)

    def on(self, device: torch.device) -> Tensor:
        """All keys (R, D) there; a view, valid until the next add."""
        self.keys.follow(device)
        return self.keys.filled

    def exact(self, queries_MD: Tensor, k: int) -> Neighbours:
        return self.search(queries_MD, k)

    def rows(self, slots_N: Tensor) -> Tensor:
        return self.keys.filled[slots_N.to(self.keys.filled.device)]

    def dump(self) -> dict[str, Tensor]:
        keys_RD = self.keys.dump()
        return {} if keys_RD is None else {"keys": keys_RD}

    def load(self, dump: dict[str, Tensor]) -> None:
        self.keys.load(dump.get("keys"))
