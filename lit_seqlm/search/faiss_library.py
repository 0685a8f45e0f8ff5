"""The faiss library: found or explained, asked without its pitfalls."""

# M = queries, R = remembered keys, K = neighbours, D = size of a key

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.search import exact
from lit_seqlm.search.neighbours import Neighbours, missing


def library() -> Any:
    """The module `faiss`.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError(
            "this cache.store.kind needs faiss, which is not installed: pip install faiss-cpu. "
            "cache.store.kind=exact works without it."
        ) from None
    return faiss


def metric_of(metric: str) -> int:
    """faiss's number of a metric; its "L2" is the squared distance."""
    faiss = library()
    return faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT


def array(keys_ND: Tensor) -> np.ndarray:
    """What faiss reads: float32, contiguous, on the CPU."""
    return np.ascontiguousarray(keys_ND.detach().cpu().numpy(), dtype=np.float32)


def ask(index: Any, queries_MD: Tensor, k: int, metric: str) -> Neighbours:
    """Search a faiss index. It answers -1 at 3.4e38 where it found fewer than k, and squares slightly below zero."""
    measure_MK, slots_MK = (torch.from_numpy(part) for part in index.search(array(queries_MD), k))
    measure_MK = measure_MK.masked_fill(slots_MK < 0, missing(metric))
    if metric == "l2":
        measure_MK = measure_MK.clamp_min(0)
    return Neighbours(measure_MK.to(queries_MD.device), slots_MK.to(queries_MD.device))


def measure(queries_MD: Tensor, keys_RD: Tensor, slots_MK: Tensor, metric: str) -> Tensor:
    """As `exact.measure`; on a CPU by faiss's kernel, which gathers nothing (six times as fast)."""
    if keys_RD.device.type != "cpu":
        return exact.measure(queries_MD, keys_RD, slots_MK, metric)
    faiss = library()
    queries, keys = array(queries_MD), array(keys_RD)
    slots = np.ascontiguousarray(slots_MK.cpu().numpy(), dtype=np.int64)
    measure_MK = np.empty(slots.shape, dtype=np.float32)
    kernel = faiss.fvec_L2sqr_by_idx if metric == "l2" else faiss.fvec_inner_products_by_idx
    pointers = [faiss.swig_ptr(part) for part in (measure_MK, queries, keys, slots)]
    kernel(*pointers, keys.shape[1], *slots.shape)
    return torch.from_numpy(measure_MK).to(queries_MD.device)


def dump(index: Any) -> Tensor:
    """A faiss index as bytes."""
    return torch.from_numpy(library().serialize_index(index))


def load(dump: Tensor) -> Any:
    """A faiss index from its bytes."""
    return library().deserialize_index(dump.cpu().numpy())


@contextmanager
def one_thread() -> Iterator[None]:
    """Some of faiss's building depends on the order in which threads come; a resumed run must not."""
    faiss = library()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
