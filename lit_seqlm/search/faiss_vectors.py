"""faiss indexes that keep the keys themselves and are never trained: Flat and HNSW."""

# M = queries, N = keys added, R = remembered keys, D = size of a key

from typing import Any

import torch
from torch import Tensor

from lit_seqlm.search import faiss_library
from lit_seqlm.search.exact import search_exact
from lit_seqlm.search.index import BLOCK
from lit_seqlm.search.neighbours import Neighbours, best_first, no_neighbours

LINKS = 32  # of a node of the graph; the lowest layer has twice as many
WIDTH_WHILE_BUILDING = 80  # efConstruction: candidates kept while a node's links are sought
WIDTH_WHILE_SEARCHING = 64  # efSearch; faiss raises it to k
INSERTED_TOGETHER = 1024  # faiss orders the nodes of one call, so calls are cut at fixed numbers


def _view(storage: Any) -> Tensor:
    """faiss's own rows (R, D), without a copy; valid until the next add."""
    numbers = faiss_library.library().rev_swig_ptr(storage.get_xb(), storage.ntotal * storage.d)
    return torch.from_numpy(numbers.reshape(storage.ntotal, storage.d))


class FaissFlat:
    """faiss's exact search. The row is the slot, so a slot in use is overwritten where it stands."""

    def __init__(self, metric: str):
        self.metric = metric
        self.index: Any = None

    def __len__(self) -> int:
        return 0 if self.index is None else self.index.ntotal

    @property
    def num_bytes(self) -> int:
        return 0 if self.index is None else 4 * self.index.d * len(self)

    def add(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        if self.index is None:
            metric = faiss_library.metric_of(self.metric)
            self.index = faiss_library.library().IndexFlat(keys_ND.shape[1], metric)
        keys_ND, slots_N = keys_ND.cpu(), slots_N.cpu()
        used_N = slots_N < len(self)
        if used_N.any():
            _view(self.index)[slots_N[used_N]] = keys_ND[used_N]
        order = slots_N[~used_N].argsort()
        if len(order):
            self.index.add(faiss_library.array(keys_ND[~used_N][order]))

    def search(self, queries_MD: Tensor, k: int) -> Neighbours:
        k = min(k, len(self))
        if not k or not len(queries_MD):
            return no_neighbours(queries_MD)
        slots_MK = faiss_library.ask(self.index, queries_MD, k, self.metric).slots_MK
        measure_MK = faiss_library.measure(queries_MD, _view(self.index), slots_MK, self.metric)
        return best_first(measure_MK, slots_MK, self.metric, k)

    def exact(self, queries_MD: Tensor, k: int) -> Neighbours:
        return self.search(queries_MD, k)

    def rows(self, slots_N: Tensor) -> Tensor:
        return _view(self.index)[slots_N.cpu()]

    def dump(self) -> dict[str, Tensor]:
        return {} if self.index is None else {"index": faiss_library.dump(self.index)}

    def load(self, dump: dict[str, Tensor]) -> None:
        self.index = faiss_library.load(dump["index"]) if dump else None


class FaissHnsw:
    """A navigable small-world graph (Malkov and Yashunin, 1603.09320), grown a key at a time; it cannot forget.

    The newest keys wait, and are searched exactly, until 1,024 of them enter the graph together, on one thread and
    with random levels drawn from (seed, slot): the graph then depends on the stream alone, not on how it was cut.
    """

    def __init__(self, metric: str, seed: int):
        self.metric, self.seed = metric, seed
        self.graph: Any = None
        self.waiting_ND: Tensor | None = None

    def __len__(self) -> int:
        return self._num_linked + (0 if self.waiting_ND is None else len(self.waiting_ND))

    @property
    def _num_linked(self) -> int:
        return 0 if self.graph is None else self.graph.ntotal

    @property
    def num_bytes(self) -> int:
        """Keys, and links of 4 bytes: 2 x 32 on the lowest layer, 32 on a 32nd as many nodes of the next."""
        size = 0 if self.waiting_ND is None else self.waiting_ND.shape[1]
        return 4 * size * len(self) + (4 * (2 * LINKS + 1) + 12) * self._num_linked

    def add(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        assert int(slots_N.min()) == len(self), "a graph's slots follow each other"
        keys_ND = keys_ND.cpu()[slots_N.cpu().argsort()]
        waiting_ND = keys_ND if self.waiting_ND is None else torch.cat([self.waiting_ND, keys_ND])
        while len(waiting_ND) >= INSERTED_TOGETHER:
            self._link(waiting_ND[:INSERTED_TOGETHER])
            waiting_ND = waiting_ND[INSERTED_TOGETHER:]
        self.waiting_ND = waiting_ND.clone()

    def _link(self, keys_ND: Tensor) -> None:
        faiss = faiss_library.library()
        if self.graph is None:
            metric = faiss_library.metric_of(self.metric)
            self.graph = faiss.IndexHNSWFlat(keys_ND.shape[1], LINKS, metric)
            self.graph.hnsw.efConstruction = WIDTH_WHILE_BUILDING
            self.graph.hnsw.efSearch = WIDTH_WHILE_SEARCHING
        # A saved graph forgets its random state, so that each batch gets one of its own.
        self.graph.hnsw.rng = faiss.RandomGenerator(self.seed + self.graph.ntotal)
        with faiss_library.one_thread():
            self.graph.add(faiss_library.array(keys_ND))

    def search(self, queries_MD: Tensor, k: int) -> Neighbours:
        if self.graph is None or not len(queries_MD):
            return self._with_waiting(queries_MD, no_neighbours(queries_MD), k)
        k_linked = min(k, self.graph.ntotal)
        slots_MK = faiss_library.ask(self.graph, queries_MD, k_linked, self.metric).slots_MK
        linked = self._linked_keys()
        measure_MK = faiss_library.measure(queries_MD, linked, slots_MK, self.metric)
        return self._with_waiting(queries_MD, Neighbours(measure_MK, slots_MK), k)

    def exact(self, queries_MD: Tensor, k: int) -> Neighbours:
        if self.graph is None:
            return self.search(queries_MD, k)
        near = search_exact(queries_MD.cpu(), self._linked_keys(), k, self.metric, BLOCK)
        device = queries_MD.device
        linked = Neighbours(near.measure_MK.to(device), near.slots_MK.to(device))
        return self._with_waiting(queries_MD, linked, k)

    def _linked_keys(self) -> Tensor:
        return _view(faiss_library.library().downcast_index(self.graph.storage))

    def _with_waiting(self, queries_MD: Tensor, linked: Neighbours, k: int) -> Neighbours:
        """Merge with an exact search among the keys that wait."""
        if self.waiting_ND is None or not len(self.waiting_ND):
            return best_first(linked.measure_MK, linked.slots_MK, self.metric, k)
        waiting_ND = self.waiting_ND.to(queries_MD.device)
        near = search_exact(queries_MD, waiting_ND, k, self.metric, BLOCK)
        measure_MK = torch.cat([linked.measure_MK, near.measure_MK], dim=-1)
        slots_MK = torch.cat([linked.slots_MK, near.slots_MK + self._num_linked], dim=-1)
        return best_first(measure_MK, slots_MK, self.metric, k)

    def rows(self, slots_N: Tensor) -> Tensor:
        slots_N = slots_N.cpu()
        assert self.waiting_ND is not None
        keys_ND = self.waiting_ND.new_empty((len(slots_N), self.waiting_ND.shape[1]))
        linked_N = slots_N < self._num_linked
        if linked_N.any():
            keys_ND[linked_N] = self._linked_keys()[slots_N[linked_N]]
        keys_ND[~linked_N] = self.waiting_ND[slots_N[~linked_N] - self._num_linked]
        return keys_ND

    def dump(self) -> dict[str, Tensor]:
        dump = {} if self.waiting_ND is None else {"waiting": self.waiting_ND.clone()}
        return dump if self.graph is None else dump | {"graph": faiss_library.dump(self.graph)}

    def load(self, dump: dict[str, Tensor]) -> None:
        self.waiting_ND = dump.get("waiting")
        self.graph = faiss_library.load(dump["graph"]) if "graph" in dump else None
