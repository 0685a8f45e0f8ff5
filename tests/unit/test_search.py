"""Near neighbours and evictions against NumPy, brute force and plain Python."""

# M = queries, N = keys added, R = remembered keys, K = neighbours, D = size of a key

import heapq

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.search import faiss_library
from lit_seqlm.search.eviction import make_eviction
from lit_seqlm.search.exact import measure, search_exact
from lit_seqlm.search.faiss_lists import FaissLists, check_code_bytes
from lit_seqlm.search.faiss_vectors import FaissFlat, FaissHnsw
from lit_seqlm.search.index import ExactIndex, VectorIndex
from lit_seqlm.search.neighbours import best_first

M, R, D = 7, 900, 16


@pytest.fixture
def keys() -> Tensor:
    return torch.randn(R, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def queries() -> Tensor:
    return torch.randn(M, D, generator=torch.Generator().manual_seed(1))


def brute(queries_MD: Tensor, keys_RD: Tensor, metric: str) -> np.ndarray:
    """Measures (M, R) in float64, pair by pair."""
    queries, keys = queries_MD.double().numpy(), keys_RD.double().numpy()
    if metric == "l2":
        return np.stack([((keys - query) ** 2).sum(-1) for query in queries])
    return np.stack([(keys * query).sum(-1) for query in queries])


def order(measures_MR: np.ndarray, metric: str) -> np.ndarray:
    """Slots, best first, ties to the lower."""
    return np.argsort(measures_MR if metric == "l2" else -measures_MR, kind="stable", axis=-1)


def make(kind: str, metric: str) -> VectorIndex:
    if kind == "exact":
        return ExactIndex(metric, None)
    return FaissFlat(metric) if kind == "faiss_flat" else FaissHnsw(metric, 0)


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("block", [1, 50, 899, 5000])
@pytest.mark.parametrize("k", [1, 20, 895, 2000, None])
def test_exact_is_argsort(keys, queries, metric, block, k):
    near = search_exact(queries, keys, k, metric, block)
    measures = brute(queries, keys, metric)
    slots = order(measures, metric)[:, :k]
    assert (near.slots_MK.numpy() == slots).all()
    np.testing.assert_allclose(
        near.measure_MK, np.take_along_axis(measures, slots, -1), rtol=1e-5, atol=1e-5
    )


def test_no_cancellation_for_near_keys_of_large_norm(keys):
    """The squares are about 1e6 and the distances 1e-4: the expanded square would be wrong by its whole size."""
    keys_RD = 250 * keys / keys.norm(dim=-1, keepdim=True)
    queries_MD = keys_RD[:M].clone()
    queries_MD[:, 0] += 0.01
    near = search_exact(queries_MD, keys_RD, 5, "l2", 256)
    assert near.slots_MK[:, 0].tolist() == list(range(M))
    exact = brute(queries_MD, keys_RD, "l2")[np.arange(M), np.arange(M)]
    np.testing.assert_allclose(near.measure_MK[:, 0], exact, rtol=1e-5)


def test_equal_keys_come_in_the_order_of_their_slots(keys, queries):
    keys_RD = torch.cat([keys[:3]] * 4 + [100 + keys[:60]])
    near = search_exact(queries, keys_RD, 12, "l2", 5)
    measures = np.sort(near.measure_MK.numpy().reshape(M, 3, 4), axis=-1)
    assert (measures == measures[..., :1]).all()
    assert (np.diff(near.slots_MK.numpy().reshape(M, 3, 4), axis=-1) > 0).all()


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_measure_in_slices_equals_brute_force(keys, queries, metric, monkeypatch):
    monkeypatch.setattr("lit_seqlm.search.exact.GATHERED", 3 * D * 20)
    slots_MK = torch.randint(0, R, (M, 20), generator=torch.Generator().manual_seed(2))
    expected = np.take_along_axis(brute(queries, keys, metric), slots_MK.numpy(), -1)
    for function in (measure, faiss_library.measure):
        np.testing.assert_allclose(
            function(queries, keys, slots_MK, metric), expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_best_first_is_a_sort_of_pairs(metric):
    values = [0.0, -0.0, 1e-40, 1.5, -1.5, 3e38, -3e38, 7.25, float("inf"), float("-inf")]
    measures, slots = np.repeat(values, 3), np.random.default_rng(0).permutation(30)
    near = best_first(
        torch.tensor(measures).float()[None], torch.from_numpy(slots)[None], metric, 25
    )
    sign = 1 if metric == "l2" else -1
    pairs = sorted((sign * np.float32(m), s) for m, s in zip(measures, slots, strict=True))[:25]
    assert (sign * near.measure_MK[0]).tolist() == [measure for measure, _ in pairs]
    nonzero = [s for m, s in pairs if m]  # 0.0 and -0.0 are told apart
    found = near.slots_MK[0][near.measure_MK[0] != 0].tolist()
    assert found == nonzero


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_missing_neighbours_come_last(metric):
    near = best_first(torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([[-1, 4, 3]]), metric, 3)
    assert near.slots_MK.tolist() == [[3, 4, -1] if metric == "l2" else [4, 3, -1]]
    assert near.measure_MK[0, 2].item() == (np.inf if metric == "l2" else -np.inf)


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_exact_equals_faiss_flat(keys, queries, metric):
    plain = faiss.IndexFlat(D, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)
    plain.add(keys.numpy())
    measures, slots = plain.search(queries.numpy(), 50)
    near = search_exact(queries, keys, 50, metric, 128)
    np.testing.assert_allclose(near.measure_MK, measures, rtol=1e-5, atol=1e-5)
    assert (near.slots_MK.numpy() == slots).all()


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("kind", ["exact", "faiss_flat"])
def test_overwritten_keys_are_gone(keys, queries, kind, metric):
    """A ring written over twice, in unequal pieces, holds its last keys."""
    index, capacity = make(kind, metric), 300
    written = torch.empty(capacity, D)
    for start, end in ((0, 130), (130, 310), (310, 500), (500, 777), (777, 900)):
        slots_N = torch.arange(start, end) % capacity
        fresh = torch.from_numpy(np.unique(slots_N.flip(0), return_index=True)[1])
        chosen = (end - start - 1 - fresh).sort(descending=True).values
        index.add(keys[start:end][chosen], slots_N[chosen])
        written[slots_N[chosen]] = keys[start:end][chosen]
        near = index.search(queries, 25)
        expected = order(brute(queries, written[: len(index)], metric), metric)[:, :25]
        assert (near.slots_MK.numpy() == expected).all()
    assert len(index) == capacity
    assert (index.rows(torch.tensor([5, 0])) == written[[5, 0]]).all()
    assert index.num_bytes == 4 * D * capacity


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_graph_finds_neighbours_and_does_not_depend_on_pieces(metric):
    keys_ND = torch.randn(3000, D, generator=torch.Generator().manual_seed(3))
    queries_MD = torch.randn(50, D, generator=torch.Generator().manual_seed(4))
    whole, pieces = make("hnsw", metric), make("hnsw", metric)
    whole.add(keys_ND, torch.arange(3000))
    for start in range(0, 3000, 375):
        pieces.add(keys_ND[start : start + 375], torch.arange(start, min(start + 375, 3000)))
        if start == 1500:  # goes on in another process
            resumed = make("hnsw", metric)
            resumed.load(pieces.dump())
            pieces = resumed
    found, again = whole.search(queries_MD, 20), pieces.search(queries_MD, 20)
    assert torch.equal(found.slots_MK, again.slots_MK)
    assert torch.equal(found.measure_MK, again.measure_MK)
    true = order(brute(queries_MD, keys_ND, metric), metric)[:, :20]
    hits = [
        len(set(a) & set(b)) for a, b in zip(found.slots_MK.tolist(), true.tolist(), strict=True)
    ]
    assert sum(hits) / (20 * 50) > 0.9
    assert (whole.exact(queries_MD, 20).slots_MK.numpy() == true).all()
    assert torch.equal(whole.rows(torch.tensor([2999, 4])), keys_ND[[2999, 4]])


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_every_list_probed_is_exact(keys, queries, metric):
    index = FaissLists("ivf_flat", metric, 20, 1000, 8, 0)
    index.train(keys)
    index.add(keys, torch.arange(R))
    assert index.index.nlist == 20
    near = index.search(queries, 30)
    measures = brute(queries, keys, metric)
    assert (near.slots_MK.numpy() == order(measures, metric)[:, :30]).all()
    index.add(-keys[:400], torch.arange(400))  # overwrites
    assert len(index) == R
    written = torch.cat([-keys[:400], keys[400:]])
    expected = order(brute(queries, written, metric), metric)[:, :30]
    assert (index.search(queries, 30).slots_MK.numpy() == expected).all()


def test_few_points_make_few_lists_and_a_thin_probe_misses_neighbours(keys, queries):
    index = FaissLists("ivf_flat", "l2", 4096, 1, 8, 0)
    index.train(keys[:100])
    assert index.index.nlist == 2
    index.train(keys[:5])
    assert index.index.nlist == 1
    index.train(keys)
    index.add(keys, torch.arange(R))
    assert index.index.nlist == R // 39
    near = index.search(queries, R)
    assert (near.slots_MK == -1).any(dim=-1).all()
    assert (near.measure_MK.isinf() == (near.slots_MK == -1)).all()


def test_quantisation_error_against_a_loop(keys):
    index = FaissLists("ivf_flat", "l2", 8, 8, 8, 0)
    index.train(keys)
    centroids = index.index.quantizer.reconstruct_n(0, 8)
    expected = [min(((key - c) ** 2).sum() for c in centroids) for key in keys[:50].numpy()]
    np.testing.assert_allclose(index.errors(keys[:50]), expected, rtol=1e-5)
    codes = FaissLists("ivfpq", "l2", 1, 1, 4, 0)
    codes.train(keys)
    codes.add(keys[:50], torch.arange(50))
    near = codes.search(keys[:50], 50)
    own = near.measure_MK[
        near.slots_MK == torch.arange(50)[:, None]
    ]  # a code's distance to its key
    order_N = near.slots_MK[near.slots_MK == torch.arange(50)[:, None]]
    assert order_N.tolist() == list(range(50))
    np.testing.assert_allclose(codes.errors(keys[:50]), own, rtol=1e-3, atol=1e-5)


def test_code_bytes_must_divide():
    check_code_bytes(64, 256)
    with pytest.raises(UserError, match=r"cache.store.code_bytes=50 .* 256 .*32, 64"):
        check_code_bytes(50, 256)
    with pytest.raises(UserError, match=r"cache\.store\.code_bytes=7 "):
        check_code_bytes(7, 4)


def splitmix(seed: int, number: int) -> float:
    """As published: 64-bit integers, one at a time."""
    mask = 2**64 - 1
    mixed = (seed * 0xD1342543DE82EF95 + (number + 1) * 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53


def kept_one_by_one(evict: str, surprisal: list[float], capacity: int, seed: int) -> set[int]:
    """The numbers of the states that stay, decided a state at a time."""
    kept: list[int] = []
    heap: list[tuple[float, int]] = []
    for number, value in enumerate(surprisal):
        if evict == "surprisal":
            heapq.heappush(heap, (value, number))
            if len(heap) > capacity:
                heapq.heappop(heap)
        elif number < capacity:
            kept.append(number)
        elif evict == "fifo":
            kept = [*kept[1:], number]
        else:
            slot = int(splitmix(seed, number) * (number + 1))
            if slot < capacity:
                kept[slot] = number
    return set(kept) | {number for _, number in heap}


@pytest.mark.parametrize("cuts", [[500], [1] * 500, [3, 60, 437], [49, 51, 400]])
@pytest.mark.parametrize("evict", ["fifo", "reservoir", "surprisal"])
def test_eviction_is_what_a_loop_keeps(evict, cuts):
    surprisal = np.random.default_rng(0).integers(0, 40, 500).astype(np.float32)  # with ties
    policy, slots, first = make_eviction(evict, 50, 9), {}, 0
    for cut in cuts:
        placed = policy.place(first, surprisal[first : first + cut])
        for number, slot in enumerate(placed.tolist(), start=first):
            if slot >= 0:
                slots[slot] = number
        first += cut
        assert sorted(slots) == list(range(min(first, 50)))
        assert set(slots.values()) == kept_one_by_one(evict, surprisal[:first].tolist(), 50, 9)


def test_reservoir_is_uniform_and_seeded():
    counts = np.zeros(1000)
    for seed in range(400):
        slots: dict[int, int] = {}
        placed = make_eviction("reservoir", 100, seed).place(0, np.zeros(1000, dtype=np.float32))
        for number, slot in enumerate(placed.tolist()):
            if slot >= 0:
                slots[slot] = number
        counts[list(slots.values())] += 1
    assert counts.sum() == 400 * 100
    by_tenth = counts.reshape(10, 100).sum(-1)  # 4000 each, sd about 57
    assert (abs(by_tenth - 4000) < 300).all()


@pytest.mark.parametrize(
    ("evict", "capacity", "said"),
    [
        ("lru", 5, "there is no cache.store.evict=lru"),
        ("none", 5, "must say which states leave"),
        ("fifo", None, "cache.store.capacity=null"),
        ("fifo", 0, "at least 1"),
    ],
)
def test_evictions_refused(evict, capacity, said):
    with pytest.raises(UserError, match=said):
        make_eviction(evict, capacity, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_gpu_finds_what_the_cpu_finds(keys, queries, metric):
    near = search_exact(queries.cuda(), keys.cuda(), 40, metric, 100)
    expected = search_exact(queries, keys, 40, metric, 100)
    assert torch.equal(near.slots_MK.cpu(), expected.slots_MK)
    torch.testing.assert_close(near.measure_MK.cpu(), expected.measure_MK, rtol=1e-5, atol=1e-5)
