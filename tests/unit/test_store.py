"""The store through its whole life: grown, evicting, trained, resumed, saved."""

# M = queries, N = states, K = neighbours, D = size of a key

import errno
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_seqlm.errors import UserError
from lit_seqlm.search import snapshot
from lit_seqlm.search.faiss_lists import check_code_bytes
from lit_seqlm.search.store import Store

N, M, D = 1500, 9, 8
KINDS = ["exact", "faiss_flat", "ivf_flat", "ivfpq", "hnsw"]


def make(**changes: Any) -> Store:
    options = {
        "metric": "l2",
        "kind": "exact",
        "num_lists": 16,
        "num_probes": 4,
        "code_bytes": 4,
        "capacity": None,
        "evict": "none",
        "refine": True,
        "rebuild": "doublings",
        "first_build": 300,
        "probe": 20,
        "seed": 0,
    }
    return Store(**{**options, **changes})


@pytest.fixture(scope="module")
def stream() -> tuple[Tensor, Tensor, Tensor]:
    """Keys, labels (the state's number: each is its own word), surprisals."""
    generator = torch.Generator().manual_seed(0)
    keys_ND = torch.randn(N, D, generator=generator)
    return keys_ND, torch.arange(N), torch.rand(N, generator=generator)


@pytest.fixture(scope="module")
def queries() -> Tensor:
    return torch.randn(M, D, generator=torch.Generator().manual_seed(1))


def fill(store: Store, stream: tuple[Tensor, ...], end: int = N, step: int = N, start: int = 0):
    for first in range(start, end, step):
        store.insert(*(part[first : min(first + step, end)] for part in stream))
    return store


def same(a: Store, b: Store, queries: Tensor, k: int | None = 40) -> bool:
    pairs = zip(a.search(queries, k), b.search(queries, k), strict=True)
    return all(torch.equal(mine, other) for mine, other in pairs)


def nearest(queries_MD: Tensor, keys_ND: Tensor, labels: list[int], metric: str, k: int):
    """Labels of the k best by brute force in float64."""
    queries, keys = queries_MD.double().numpy(), keys_ND[labels].double().numpy()
    scores_MR = queries @ keys.T
    if metric == "l2":
        scores_MR = -((queries[:, None] - keys[None]) ** 2).sum(-1)
    return np.array(labels)[np.argsort(-scores_MR, axis=-1, kind="stable")[:, :k]]


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("kind", ["exact", "faiss_flat", "ivf_flat"])
@pytest.mark.parametrize("evict", ["none", "fifo", "surprisal"])
def test_finds_the_true_neighbours_among_what_is_kept(stream, queries, kind, metric, evict):
    capacity = None if evict == "none" else 400
    store = make(kind=kind, metric=metric, num_probes=16, evict=evict, capacity=capacity)
    fill(store, stream, step=170)
    kept = {
        "none": list(range(N)),
        "fifo": list(range(N - 400, N)),
        "surprisal": sorted(stream[2].topk(400).indices.tolist()),
    }[evict]
    assert len(store) == len(kept)
    measures, labels = store.search(queries, 30)
    assert labels.tolist() == nearest(queries, stream[0], kept, metric, 30).tolist()
    keys_MKD = stream[0][labels]
    expected = (
        (keys_MKD - queries[:, None]).square().sum(-1)
        if metric == "l2"
        else (keys_MKD * queries[:, None]).sum(-1)
    )
    torch.testing.assert_close(measures, expected, rtol=1e-5, atol=1e-5)
    assert store.recall(10) == 1.0


@pytest.mark.parametrize("metric", ["l2", "dot"])
@pytest.mark.parametrize("kind", ["ivf_flat", "ivfpq", "hnsw"])
@pytest.mark.parametrize("refine", [True, False])
def test_recall_is_that_of_brute_force(stream, kind, metric, refine):
    rebuild = "doublings" if refine else "never"
    store = make(kind=kind, metric=metric, num_probes=1, refine=refine, rebuild=rebuild)
    fill(store, stream, step=130)
    size = N if refine or kind == "hnsw" else 300  # probes are drawn while the keys are there
    own = [number * size // 20 for number in range(20)]
    hits = 0
    for number in own:
        _, found = store.search(stream[0][[number]], 11)
        found = [label for label in found[0].tolist() if label not in (number, -1)][:10]
        others = [label for label in range(N) if label != number]
        true = nearest(stream[0][[number]], stream[0], others, metric, 10)[0]
        hits += len(set(found) & set(true.tolist()))
    assert store.recall(10) == pytest.approx(hits / 200)
    assert hits > (180 if kind == "hnsw" else 30)
    if kind != "hnsw":
        assert store.recall(10) < 1


def test_recall_is_not_claimed_when_it_is_not_known(stream):
    assert make().recall(5) is None
    assert fill(make(probe=0), stream).recall(5) is None
    store = make(kind="ivfpq", refine=False, rebuild="never", capacity=400, evict="fifo")
    fill(store, stream, end=400, step=100)
    assert store.recall(5) is not None
    assert store.recall(2000) is None
    fill(store, stream, start=400)
    assert store.recall(5) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("evict", ["none", "fifo", "reservoir", "surprisal"])
@pytest.mark.parametrize("rebuild", ["doublings", "drift", "never"])
def test_cut_and_resumed_anywhere_it_answers_the_same(stream, queries, kind, evict, rebuild):
    """Whole, in pieces, and through a saved state: bit for bit."""
    if kind == "hnsw" and evict != "none":
        pytest.skip("a graph cannot forget")
    capacity = None if evict == "none" else 350
    options = {"kind": kind, "evict": evict, "capacity": capacity, "rebuild": rebuild}
    whole, pieces = fill(make(**options), stream), make(**options)
    fill(pieces, stream, end=1100, step=275)
    file = io.BytesIO()
    torch.save(pieces.state_dict(), file)
    file.seek(0)
    resumed = make(**options)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert same(pieces, resumed, queries)
    fill(resumed, stream, start=1100, step=100)
    fill(pieces, stream, start=1100, step=100)
    assert same(pieces, resumed, queries)
    assert same(pieces, whole, queries)
    assert len(whole) == len(pieces) == len(resumed) == (capacity or N)
    assert whole.recall(10) == resumed.recall(10)


def test_codes_alone_resume_too(stream, queries):
    options = {"kind": "ivfpq", "refine": False, "rebuild": "never"}
    store = fill(make(**options), stream, end=700, step=100)
    resumed = make(**options)
    resumed.load_state_dict(store.state_dict())
    fill(store, stream, start=700)
    fill(resumed, stream, start=700)
    assert same(store, resumed, queries)
    assert store.recall(10) == resumed.recall(10) is not None


def test_reset_forgets(stream, queries):
    store = fill(make(kind="ivfpq"), stream)
    store.reset()
    assert len(store) == store.num_bytes == 0
    assert store.search(queries, 5)[0].shape == (M, 0)
    fill(store, stream, end=500)
    assert same(store, fill(make(kind="ivfpq"), stream, end=500), queries)


def test_trained_at_the_first_build_and_at_doublings(stream, monkeypatch):
    sizes = []
    train = "lit_seqlm.search.faiss_lists.FaissLists.train"
    from lit_seqlm.search.faiss_lists import FaissLists

    plain = FaissLists.train
    monkeypatch.setattr(train, lambda self, keys: (sizes.append(len(keys)), plain(self, keys)))
    fill(make(kind="ivf_flat"), stream, step=7)
    assert sizes == [300, 600, 1200]
    sizes.clear()
    fill(make(kind="ivf_flat", capacity=500, evict="fifo"), stream)
    assert sizes == [300, 500, 500]
    sizes.clear()
    fill(make(kind="ivf_flat", rebuild="never"), stream)
    assert sizes == [300]


@pytest.mark.parametrize("kind", ["ivf_flat", "ivfpq"])
@pytest.mark.parametrize(("scale", "said"), [(1, "kept"), (3, "trained again")])
def test_drift_trains_again_only_when_the_stream_moves(kind, scale, said, caplog):
    caplog.set_level(logging.INFO)
    keys_ND = torch.randn(6000, D, generator=torch.Generator().manual_seed(6))
    keys_ND[3000:] *= scale
    store = make(kind=kind, rebuild="drift", num_lists=4, first_build=3000)
    fill(store, (keys_ND, torch.arange(6000), torch.zeros(6000)), end=6000, step=1000)
    assert [record.message.rsplit(": ")[1] for record in caplog.records] == [said]
    assert store.index.drift is not None
    assert store.index.drift.count == (3000 if said == "kept" else 0)
    assert len(store) == 6000


@pytest.mark.parametrize("kind", KINDS)
def test_small_and_degenerate_memories(stream, queries, kind):
    store = make(kind=kind, first_build=256)
    measures, labels = store.search(queries, 5)
    assert measures.shape == labels.shape == (M, 0)
    store.insert(*(part[:0] for part in stream))
    fill(store, stream, end=1)
    assert store.search(queries, 100)[1].tolist() == [[0]] * M
    assert store.search(queries[:0], 5)[0].shape[0] == 0
    fill(store, stream, start=1, end=3)
    assert store.search(queries, None)[1].sort().values.tolist() == [[0, 1, 2]] * M
    same_key = stream[0][:1].expand(600, D)
    store.insert(same_key, torch.arange(600) + 7, torch.zeros(600))
    measures, labels = store.search(stream[0][:1], 10)
    assert (measures[labels >= 0] == 0).all()
    assert measures.shape == (1, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_are_not_finite_are_refused_whole(stream, queries, kind):
    store = fill(make(kind=kind), stream, end=400)
    keys_ND = stream[0][:5].clone()
    keys_ND[1, 2], keys_ND[3, 0] = float("nan"), float("inf")
    with pytest.raises(UserError, match="2 of 5 hidden states"):
        store.insert(keys_ND, stream[1][:5], stream[2][:5])
    with pytest.raises(UserError, match="1 of 1 tokens"):
        store.insert(stream[0][:1], stream[1][:1], torch.tensor([float("nan")]))
    assert same(store, fill(make(kind=kind), stream, end=400), queries)
    store.insert(stream[0][:1], stream[1][:1], torch.tensor([float("inf")]))
    assert len(store) == 401


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "ivfqp"}, "cache.store.kind=ivfqp. Did you mean ivfpq"),
        ({"metric": "cosine"}, "cache.store.metric=cosine"),
        ({"rebuild": "always"}, "cache.store.rebuild=always"),
        ({"evict": "lru", "capacity": 3}, "cache.store.evict=lru"),
        ({"capacity": 10}, "cache.store.evict=fifo"),
        ({"num_probes": 0}, "cache.store.num_probes=0: at least 1"),
        ({"probe": -1}, "cache.store.probe=-1"),
        ({"kind": "hnsw", "evict": "fifo", "capacity": 10}, "cache.store.evict=none"),
        ({"kind": "ivfpq", "refine": False}, "cache.store.rebuild=never"),
        ({"kind": "ivfpq", "first_build": 270, "rebuild": "drift"}, "trained on 253 states"),
        (
            {"kind": "ivf_flat", "first_build": 1, "rebuild": "drift"},
            "cache.store.first_build=10000",
        ),
        ({"kind": "ivfpq", "first_build": 100}, "cache.store.first_build=100"),
        ({"kind": "ivfpq", "capacity": 99, "evict": "fifo"}, "cache.store.capacity=99"),
    ],
)
def test_options_refused(changes, said):
    with pytest.raises(UserError) as told:
        make(**changes)
    assert said in str(told.value)


def test_code_bytes_are_refused_with_the_first_state(stream):
    with pytest.raises(UserError, match=r"cache\.store\.code_bytes=3 does not divide the 8"):
        fill(make(kind="ivfpq", code_bytes=3), stream, end=1)


def test_states_made_otherwise_are_refused(stream, queries):
    store = fill(make(kind="ivfpq"), stream, end=700)
    with pytest.raises(UserError, match=r"cache\.store\.code_bytes=4, not 2"):
        make(kind="ivfpq", code_bytes=2).load_state_dict(store.state_dict())
    with pytest.raises(UserError, match=r"cache\.store\.kind=ivfpq, not exact"):
        make().load_state_dict(store.state_dict())
    wide = make(kind="ivfpq", num_probes=16)
    wide.load_state_dict(store.state_dict())
    assert wide.recall(10) > store.recall(10)


def test_bytes_per_state(stream):
    """ivfpq, 64-byte codes: code, slot (8), label (4); the rest is the same whatever the number of states."""
    keys_ND = torch.randn(4000, 64, generator=torch.Generator().manual_seed(5))
    arguments = (keys_ND, torch.arange(4000), torch.zeros(4000))
    options = {"kind": "ivfpq", "code_bytes": 64, "num_lists": 1, "rebuild": "never"}
    store = make(**options, refine=False, probe=0)
    fill(store, arguments, end=2000)
    before = store.num_bytes
    fill(store, arguments, start=2000, end=4000)
    assert (store.num_bytes - before) / 2000 == 64 + 8 + 4
    refined = fill(make(**options, refine=True, probe=0), arguments, end=4000)
    assert refined.num_bytes - store.num_bytes == 4000 * 64 * 4
    exact = fill(make(), arguments, end=4000)
    assert exact.bytes_per_state == 64 * 4 + 4


def test_memory_is_bounded(stream):
    options = {"kind": "ivfpq", "evict": "surprisal", "capacity": 400}
    store = fill(make(**options, rebuild="never"), stream, end=500)
    before = store.num_bytes
    fill(store, stream, start=500)
    assert (store.num_bytes, len(store)) == (before, 400)


IDENTITY = {"model": "4f2a", "size": D, "metric": "l2", "index": "ivfpq"}


@pytest.fixture
def saved(tmp_path, stream) -> tuple[Path, Store]:
    store = fill(make(kind="ivfpq"), stream, end=700)
    path = tmp_path / "folder" / "memory.snapshot"
    snapshot.save(store.state_dict(), path, IDENTITY)
    return path, store


def test_a_snapshot_comes_back(saved, stream, queries):
    path, store = saved
    again = make(kind="ivfpq")
    again.load_state_dict(snapshot.load(path, IDENTITY))
    fill(store, stream, start=700)
    fill(again, stream, start=700)
    assert same(store, again, queries)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_snapshots_of_others_are_refused(saved, tmp_path):
    path, _ = saved
    with pytest.raises(UserError, match="model is 4f2a, here it is 77; size is 8, here it is 16"):
        snapshot.load(path, IDENTITY | {"model": "77", "size": 16})
    with pytest.raises(UserError, match="layer is not given, here it is 2"):
        snapshot.load(path, IDENTITY | {"layer": 2})
    with pytest.raises(UserError, match="there is no memory at"):
        snapshot.load(tmp_path / "none", IDENTITY)
    with pytest.raises(UserError, match="cannot read the memory"):
        snapshot.load(tmp_path, IDENTITY)
    other = tmp_path / "other"
    torch.save({}, other)
    with pytest.raises(UserError, match="is not a memory that this program saved"):
        snapshot.load(other, IDENTITY)
    other.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 7'))
    with pytest.raises(UserError, match="format 7; this program reads 1"):
        snapshot.load(other, IDENTITY)


def test_damaged_snapshots_are_refused_at_every_length(saved):
    path, _ = saved
    whole = path.read_bytes()
    header = whole.index(b"\n", len(snapshot.MAGIC)) + 1
    for length in (0, 5, len(snapshot.MAGIC), header - 4, header, header + 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut short|not a memory|damaged"):
            snapshot.load(path, IDENTITY)
    for place in (header, header + 1000, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match="checksum is wrong"):
            snapshot.load(path, IDENTITY)


@pytest.mark.parametrize("room", [0, 100, 20000])
def test_a_full_disk_leaves_the_older_file(saved, stream, queries, monkeypatch, room):
    """The disk fills while torch's own writer is at work."""
    path, store = saved
    before, plain, written = path.read_bytes(), snapshot._Hashed.write, 0

    def limited(self, data):
        nonlocal written
        written += len(data)
        if written > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(self, data)

    monkeypatch.setattr(snapshot._Hashed, "write", limited)
    fill(store, stream, start=700)
    with pytest.raises(UserError, match=str(path)):
        snapshot.save(store.state_dict(), path, IDENTITY)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_leftovers_of_a_killed_process_are_neither_read_nor_kept(saved):
    path, store = saved
    leftover = path.with_name(f".{path.name}.partial-123")
    leftover.write_bytes(path.read_bytes()[:500])
    snapshot.load(path, IDENTITY)
    snapshot.save(store.state_dict(), path, IDENTITY)
    assert not leftover.exists()
    path.unlink()
    leftover.write_bytes(b"half")
    with pytest.raises(UserError, match="there is no memory at"):
        snapshot.load(path, IDENTITY)


@pytest.mark.parametrize(("size", "expected"), [(200, 50), (256, 64), (400, 50), (16, 16), (97, 1)])
def test_codes_are_as_long_as_fits_where_nothing_is_said(size: int, expected: int) -> None:
    assert check_code_bytes(None, size) == expected
    assert check_code_bytes(expected, size) == expected
