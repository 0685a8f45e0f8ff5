"""Inverted lists: keys in the cells of a coarse quantiser, as they are (ivf_flat) or as product codes (ivfpq)."""

# M = queries, N = keys added, R = remembered keys, D = size of a key

from typing import Any

import numpy as np
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.search import faiss_library
from lit_seqlm.search.neighbours import Neighbours, no_neighbours

POINTS_PER_LIST = 39  # fewer per centroid make poor clusters (faiss's own limit)
LIST_ITERATIONS, CODE_ITERATIONS = 10, 8  # of k-means; product codes dominate training on a CPU
SAMPLED_PER_CENTROID = 64  # keys that k-means looks at, of those it is given
ADDED_TOGETHER = 65536
USUAL_BYTES = 64


def check_code_bytes(code_bytes: int | None, size: int) -> int:
    """Bytes of a product code, which cuts a key into so many equal pieces; the largest fitting number for None.

    Raises:
        UserError: if a given number does not divide the size of a key; it is never changed silently.
    """
    if code_bytes is None:
        return max(number for number in range(1, USUAL_BYTES + 1) if size % number == 0)
    if code_bytes >= 1 and size % code_bytes == 0:
        return code_bytes
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    near = sorted(sorted(divisors, key=lambda number: abs(number - code_bytes))[:4])
    raise UserError(
        f"cache.store.code_bytes={code_bytes} does not divide the {size} numbers of a state. "
        f"Divisors near it: {', '.join(map(str, near))}. Try cache.store.code_bytes={near[-1]}."
    )


class FaissLists:
    """ivf_flat and ivfpq (Jegou, Douze and Schmid, 2011). Trained once; to train again, make another.

    The number of lists is min(num_lists, R // 39), at least 1: an early, small memory gets fewer. A search looks into
    the `num_probes` nearest lists only and may find fewer than k.

    Args:
        kind: "ivf_flat" or "ivfpq".
        code_bytes: of a key under "ivfpq"; must divide D.
    """

    def __init__(
        self,
        kind: str,
        metric: str,
        num_lists: int,
        num_probes: int,
        code_bytes: int | None,
        seed: int,
    ):
        self.kind, self.metric, self.seed = kind, metric, seed
        self.num_lists, self.num_probes, self.code_bytes = num_lists, num_probes, code_bytes
        self.index: Any = None
        self.size = 0

    def __len__(self) -> int:
        return self.size

    @property
    def num_bytes(self) -> int:
        """Codes with their 8-byte slots, centroids, and the table of products that faiss computes ahead.

        Lists keep room for growth beside that: 1.3 times the codes and slots, measured at 1.5 million states.
        """
        if self.index is None:
            return 0
        codes = (self.index.code_size + 8) * self.index.ntotal
        centroids = 4 * self.index.d * self.index.nlist
        if self.kind == "ivf_flat":
            return codes + centroids
        table = self.index.precomputed_table.size() + 256 * self.index.d
        return codes + centroids + 4 * table

    def train(self, keys_RD: Tensor) -> None:
        """Find the lists' centroids, and the codes', among the keys stored so far; remembers none of them."""
        faiss = faiss_library.library()
        size, metric = keys_RD.shape[1], faiss_library.metric_of(self.metric)
        num_lists = max(1, min(self.num_lists, len(keys_RD) // POINTS_PER_LIST))
        cells = faiss.IndexFlat(size, metric)
        if self.kind == "ivfpq":
            code_bytes = check_code_bytes(self.code_bytes, size)
            index = faiss.IndexIVFPQ(cells, size, num_lists, code_bytes, 8, metric)
            self._set_clustering(index.pq.cp, CODE_ITERATIONS)
        else:
            index = faiss.IndexIVFFlat(cells, size, num_lists, metric)
        self._set_clustering(index.cp, LIST_ITERATIONS)
        index.train(faiss_library.array(keys_RD))
        index.nprobe = min(self.num_probes, num_lists)
        self.index = index

    def _set_clustering(self, options: Any, iterations: int) -> None:
        options.niter = iterations
        options.seed = self.seed % 2**31
        options.max_points_per_centroid = SAMPLED_PER_CENTROID
        options.min_points_per_centroid = 1  # else faiss writes a warning past the log

    def errors(self, keys_ND: Tensor) -> np.ndarray:
        """Squared quantisation errors (N,) float64: of the whole code under ivfpq, to the centroid under ivf_flat.

        ivf_flat loses nothing of a key; what grows stale there is the partition.
        """
        keys = faiss_library.array(keys_ND)
        if self.kind == "ivfpq":
            near = self.index.sa_decode(self.index.sa_encode(keys))
        else:
            centroids = self.index.quantizer.reconstruct_n(0, self.index.nlist)
            near = centroids[self.index.quantizer.search(keys, 1)[1][:, 0]]
        return np.square(keys - near).sum(-1, dtype=np.float64)

    def add(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        slots = slots_N.cpu().numpy()
        used = slots[slots < self.size]
        if len(used):
            self.index.remove_ids(used)
        for start in range(0, len(slots), ADDED_TOGETHER):
            part = slice(start, start + ADDED_TOGETHER)
            self.index.add_with_ids(faiss_library.array(keys_ND[part]), slots[part])
        self.size = self.index.ntotal

    def search(self, queries_MD: Tensor, k: int) -> Neighbours:
        k = min(k, len(self))
        if not k or not len(queries_MD):
            return no_neighbours(queries_MD)
        return faiss_library.ask(self.index, queries_MD, k, self.metric)

    def dump(self) -> dict[str, Tensor]:
        return {} if self.index is None else {"index": faiss_library.dump(self.index)}

    def load(self, dump: dict[str, Tensor]) -> None:
        self.index = faiss_library.load(dump["index"])
        self.index.nprobe = min(self.num_probes, self.index.nlist)
        self.size = self.index.ntotal
