"""States remembered with the token that followed each, and the nearest of them found."""

# M = queries, N = new states, K = neighbours, D = size of a key

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.search import faiss_library
from lit_seqlm.search.eviction import Eviction, make_eviction
from lit_seqlm.search.faiss_lists import check_code_bytes
from lit_seqlm.search.growing import GrowingRows
from lit_seqlm.search.lifecycle import Lifecycle
from lit_seqlm.search.neighbours import Neighbours
from lit_seqlm.search.options import StoreOptions

CHANGEABLE = ("num_probes", "probe")  # options that ask of a memory, and do not make it


class Store:
    """A memory of (key, label) pairs in slots: a bounded number of them if asked, exact or indexed.

    A trained index (ivf_flat, ivfpq) is made when `first_build` states have been seen, from states already stored;
    before that the search is exact. Whenever the number of states seen has doubled it may be trained again. These
    points are absolute in the stream, and `insert` cuts what it gets there.

    Args:
        metric: "l2" (measures are SQUARED distances) or "dot".
        kind: exact | faiss_flat | ivf_flat | ivfpq | hnsw.
        num_lists: cells of an inverted index at most; an early index has one per 39 states.
        num_probes: cells that a search looks into.
        code_bytes: of a state under ivfpq; must divide D. None: the largest divisor of D up to 64.
        capacity: states kept; None for all.
        evict: none | fifo | reservoir | surprisal: who leaves when the capacity is reached.
        refine: keep the states beside a trained index, and replace its measures by the true ones.
        rebuild: doublings | drift (only if the quantisation error has grown by a tenth) | never (trained once).
        first_build: states seen when the index is first trained.
        probe: stored states that `recall` asks for.
        seed: of the reservoir, of k-means and of the graph.

    Raises:
        UserError: for options that do not exist or do not go together, or if faiss is needed and missing.
    """

    def __init__(
        self,
        metric: str,
        kind: str,
        num_lists: int,
        num_probes: int,
        code_bytes: int | None,
        capacity: int | None,
        evict: str,
        refine: bool,
        rebuild: str,
        first_build: int,
        probe: int,
        seed: int,
    ):
        self.options = StoreOptions(
            metric=metric,
            kind=kind,
            num_lists=num_lists,
            num_probes=num_probes,
            code_bytes=code_bytes,
            capacity=capacity,
            evict=evict,
            refine=refine,
            rebuild=rebuild,
            first_build=first_build,
            probe=probe,
            seed=seed,
        )
        if kind != "exact":
            faiss_library.library()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        options = self.options
        self.num_seen = 0
        self.next_build: int | None = options.first_build if options.trained else None
        self.labels = GrowingRows(options.capacity)
        self.eviction: Eviction = make_eviction(options.evict, options.capacity, options.seed)
        self.index = Lifecycle(options)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_bytes(self) -> int:
        """Estimate of the memory held; growing buffers count what is filled."""
        return self.labels.num_bytes + self.eviction.num_bytes + self.index.num_bytes

    @property
    def bytes_per_state(self) -> float:
        return self.num_bytes / max(1, len(self))

    def insert(self, keys_ND: Tensor, labels_N: Tensor, surprisal_N: Tensor) -> None:
        """Remember states; a full memory forgets as `evict` says.

        Args:
            keys_ND: float32, already normalised.
            labels_N: int64, the token that followed each.
            surprisal_N: -log p of that token under the static model.

        Raises:
            UserError: if a key is not finite or a surprisal NaN, or if `code_bytes` does not divide D. Nothing is
                remembered then.
        """
        self._check(keys_ND, surprisal_N)
        keys_ND = keys_ND.detach().float()
        surprisal = surprisal_N.detach().float().cpu().numpy()
        start = 0
        while start < len(keys_ND):
            end = len(keys_ND)
            if self.next_build is not None:
                end = min(end, start + self.next_build - self.num_seen)
            self._write(keys_ND[start:end], labels_N[start:end], surprisal[start:end])
            start = end
            if self.num_seen == self.next_build:
                self.index.build(self.num_seen)
                once = self.options.rebuild == "never"
                self.next_build = None if once else 2 * self.num_seen

    def _check(self, keys_ND: Tensor, surprisal_N: Tensor) -> None:
        if self.options.kind == "ivfpq" and not self.num_seen:
            check_code_bytes(self.options.code_bytes, keys_ND.shape[1])
        num_bad = int((~keys_ND.isfinite().all(dim=-1)).sum())
        if num_bad:
            raise UserError(
                f"{num_bad} of {len(keys_ND)} hidden states (from state {self.num_seen} of the stream on) are NaN or "
                "infinite; a memory takes finite ones. Try trainer.precision=32-true, or another init_from=."
            )
        num_bad = int(surprisal_N.isnan().sum())
        if num_bad:
            raise UserError(
                f"{num_bad} of {len(keys_ND)} tokens (from state {self.num_seen} of the stream on) have NaN as the "
                "static model's log-probability; a memory takes numbers. Try trainer.precision=32-true, or another "
                "init_from=."
            )

    def _write(self, keys_ND: Tensor, labels_N: Tensor, surprisal: np.ndarray) -> None:
        self.index.watch(keys_ND)
        slots = self.eviction.place(self.num_seen, surprisal)
        self.num_seen += len(slots)
        chosen = _last_writers(slots)
        if not len(chosen):
            return
        slots_N = torch.from_numpy(slots[chosen])
        order = torch.from_numpy(chosen)
        labels_N = labels_N[order.to(labels_N.device)]
        assert int(labels_N.max()) < 2**31, "labels are kept in four bytes"
        self.index.write(keys_ND[order.to(keys_ND.device)], slots_N)
        self.labels.write(slots_N, labels_N.int())

    def search(self, queries_MD: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
        """Measures (M, K) float32 and labels (M, K) int64, best first; K = min(k, states), or all with k=None.

        A missing neighbour has label -1 and measure +inf ("l2") or -inf ("dot"): an inverted index may find fewer.
        """
        near = self.nearest(queries_MD, k)
        return near.measure_MK, self.words(near.slots_MK)

    def nearest(self, queries_MD: Tensor, k: int | None) -> Neighbours:
        """As `search`, with slots in place of labels."""
        k = len(self) if k is None else min(k, len(self))
        return self.index.nearest(queries_MD.detach().float(), k)

    def words(self, slots_MK: Tensor) -> Tensor:
        """The labels of slots, int64; -1 of -1."""
        if not len(self) or not slots_MK.numel():
            return torch.full_like(slots_MK, -1)
        self.labels.follow(slots_MK.device)
        labels_MK = self.labels.filled[slots_MK.clamp_min(0)].long()
        return labels_MK.masked_fill(slots_MK < 0, -1)

    def describe(self) -> str:
        """Which search answers now."""
        lists = self.index.lists
        if lists is None:
            waits = f", {self.options.kind} from {self.options.first_build:,} states on"
            return (
                f"exact{waits if self.options.trained else ''}"
                if self.options.trained
                else self.options.kind
            )
        return f"{self.options.kind}, {lists.index.nlist} lists, {lists.index.nprobe} probes"

    def recall(self, k: int) -> float | None:
        """Share of the k true neighbours that the index finds, over `probe` stored states, each without itself.

        None if it is not known: an empty memory, no probes, or, with refine=false (keys not kept), a k above 1,024 or
        a true neighbour evicted.
        """
        return self.index.recall(k)

    def state_dict(self) -> dict[str, Any]:
        """Copies, as tensors and plain values."""
        return {
            "options": asdict(self.options),
            "num_seen": self.num_seen,
            "next_build": self.next_build,
            "labels": self.labels.dump(),
            "eviction": self.eviction.state_dict(),
            "index": self.index.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; every later answer is the same, bit for bit.

        Raises:
            UserError: if the memory was made with other options.
        """
        for name, value in asdict(self.options).items():
            if name not in CHANGEABLE and state["options"].get(name) != value:
                there = state["options"].get(name)
                raise UserError(
                    f"the saved memory was made with cache.store.{name}={there}, not {value}. "
                    f"Try cache.store.{name}={there}, or begin a new memory."
                )
        self.reset()
        self.num_seen, self.next_build = state["num_seen"], state["next_build"]
        self.labels.load(state["labels"])
        self.eviction.load_state_dict(state["eviction"])
        self.index.load_state_dict(state["index"])


def _last_writers(slots: np.ndarray) -> np.ndarray:
    """Positions, ascending, of the last state to take each slot; those not kept (-1) are left out."""
    _, reversed_first = np.unique(slots[::-1], return_index=True)
    last = np.sort(len(slots) - 1 - reversed_first)
    return last[slots[last] >= 0]
