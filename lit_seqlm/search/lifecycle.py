"""An index from its first state on: exact, then trained, then trained again."""

# M = queries, N = new keys, R = remembered keys, P = probes, D = size of a key

from typing import Any

import torch
from torch import Tensor

from lit_seqlm.search import faiss_library
from lit_seqlm.search.drift import HELD_OUT, Drift
from lit_seqlm.search.faiss_lists import FaissLists
from lit_seqlm.search.faiss_vectors import FaissFlat, FaissHnsw
from lit_seqlm.search.index import ExactIndex, VectorIndex
from lit_seqlm.search.neighbours import Neighbours, best_first, no_neighbours
from lit_seqlm.search.options import StoreOptions
from lit_seqlm.search.recall import DEPTH, Followed, even_slots, overlap


class Lifecycle:
    """Keys by slot. `vectors` holds them as they are; `lists` is the trained index, once there is one.

    exact, faiss_flat and hnsw have `vectors` only. ivf_flat and ivfpq search `vectors` exactly until `build`; after it
    they search `lists`, and keep `vectors` for the true measures and for training again, or drop them (refine=false).
    """

    def __init__(self, options: StoreOptions):
        self.options = options
        self.vectors: VectorIndex | None = self._new_vectors()
        self.lists: FaissLists | None = None
        self.drift: Drift | None = None
        self.followed: Followed | None = None

    def _new_vectors(self) -> VectorIndex:
        if self.options.kind == "faiss_flat":
            return FaissFlat(self.options.metric)
        if self.options.kind == "hnsw":
            return FaissHnsw(self.options.metric, self.options.seed)
        return ExactIndex(self.options.metric, self.options.capacity)

    def _new_lists(self) -> FaissLists:
        options = self.options
        return FaissLists(
            options.kind,
            options.metric,
            options.num_lists,
            options.num_probes,
            options.code_bytes,
            options.seed,
        )

    @property
    def num_bytes(self) -> int:
        parts = (self.vectors, self.lists, self.followed)
        return sum(part.num_bytes for part in parts if part is not None)

    def watch(self, keys_ND: Tensor) -> None:
        """Take note of how well the index fits keys that come, kept or not."""
        if self.lists is not None and self.drift is not None:
            self.drift.see(self.lists.errors(keys_ND))

    def write(self, keys_ND: Tensor, slots_N: Tensor) -> None:
        """Remember keys under distinct slots; slots in use are overwritten."""
        if self.vectors is not None:
            self.vectors.add(keys_ND, slots_N)
        if self.lists is not None:
            self.lists.add(keys_ND, slots_N)
        if self.followed is not None:
            self.followed.see(keys_ND, slots_N)

    def build(self, num_seen: int) -> None:
        """Train on the stored keys, or leave the index as it is if nothing has drifted."""
        assert isinstance(self.vectors, ExactIndex)
        if self.drift is not None and not self.drift.moved(num_seen):
            return
        keys_RD = self.vectors.keys.filled
        self.lists = None  # the old one's memory is free before the new one takes its own
        lists = self._new_lists()
        if self.options.rebuild == "drift":
            held_out_R = torch.arange(len(keys_RD)) % HELD_OUT == 0
            lists.train(keys_RD[~held_out_R])
            self.drift = Drift.from_held_out(lists.errors(keys_RD[held_out_R]))
        else:
            lists.train(keys_RD)
        lists.add(keys_RD, torch.arange(len(keys_RD)))
        self.lists = lists
        if not self.options.refine:
            self._follow(self.vectors)
            self.vectors = None

    def _follow(self, vectors: ExactIndex) -> None:
        own_P = even_slots(len(vectors), self.options.probe)
        queries_PD = vectors.rows(own_P)
        own_P = own_P.to(queries_PD.device)
        truth = vectors.exact(queries_PD, DEPTH)
        self.followed = Followed(self.options.metric, queries_PD, own_P, truth)

    def nearest(self, queries_MD: Tensor, k: int) -> Neighbours:
        """At most k neighbours of each query; true measures wherever the keys are kept."""
        if not k or not len(queries_MD):
            return no_neighbours(queries_MD)
        if self.lists is None:
            assert self.vectors is not None
            return self.vectors.search(queries_MD, k)
        near = self.lists.search(queries_MD, k)
        if self.vectors is None:
            return near
        assert isinstance(self.vectors, ExactIndex)
        keys_RD = self.vectors.on(queries_MD.device)
        metric = self.options.metric
        measure_MK = faiss_library.measure(queries_MD, keys_RD, near.slots_MK, metric)
        return best_first(measure_MK, near.slots_MK, metric, k)

    def recall(self, k: int) -> float | None:
        """Share of the k true neighbours found, over probes spread evenly over the stored keys (see `Followed`)."""
        if self.followed is not None:
            return self.followed.recall(k, self.nearest)
        if self.vectors is None or not len(self.vectors):
            return None
        own_P = even_slots(len(self.vectors), self.options.probe)
        queries_PD = self.vectors.rows(own_P)
        truth = self.vectors.exact(queries_PD, k + 1)
        return overlap(own_P, truth, self.nearest(queries_PD, k + 1), k)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; None where there is no such part."""
        return {
            "vectors": None if self.vectors is None else self.vectors.dump(),
            "lists": None if self.lists is None else self.lists.dump(),
            "drift": None if self.drift is None else self.drift.state_dict(),
            "followed": None if self.followed is None else self.followed.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.vectors = self.lists = self.drift = self.followed = None
        if state["vectors"] is not None:
            self.vectors = self._new_vectors()
            self.vectors.load(state["vectors"])
        if state["lists"] is not None:
            self.lists = self._new_lists()
            self.lists.load(state["lists"])
        if state["drift"] is not None:
            self.drift = Drift.from_state(state["drift"])
        if state["followed"] is not None:
            self.followed = Followed.from_state(self.options.metric, state["followed"])
