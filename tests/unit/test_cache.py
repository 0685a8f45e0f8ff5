"""Memories against loops over their equations; causality and chunks for every one of them."""

# N = tokens, D = hidden size, V = words

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_seqlm.cache.knn import KNNStore
from lit_seqlm.cache.local import LocalCache
from lit_seqlm.cache.memory import Memory, Scores
from lit_seqlm.cache.mixture import Mixture
from lit_seqlm.cache.none import NoCache
from lit_seqlm.cache.unbounded import UnboundedCache
from lit_seqlm.cache.uniform import UniformCache
from lit_seqlm.cache.unigram import UnigramCache
from lit_seqlm.errors import UserError
from lit_seqlm.search.store import Store

N, D, V = 300, 8, 6


def store(**options: Any) -> Store:
    given = {
        "kind": "exact", "metric": "l2", "num_lists": 4, "num_probes": 4, "code_bytes": 4, "capacity": None,
        "evict": "none", "refine": True, "rebuild": "doublings", "first_build": 64, "probe": 0, "seed": 0,
    }  # fmt: skip
    return Store(**{**given, **options})


def local(**options: Any) -> LocalCache:
    given = {
        "lam": 0.1,
        "size": 20,
        "theta": 0.7,
        "normalize": "none",
        "cold_start": "immediate",
        "grid": {},
    }
    return LocalCache(**{**given, **options})


def unbounded(**options: Any) -> UnboundedCache:
    given = {
        "lam": 0.1, "k": 9, "kernel": "gaussian", "bandwidth": "kth", "bandwidth_scale": 1.0, "theta": 1.0,
        "normalize": "none",
        "store": store(), "period": 16, "grid": {},
    }  # fmt: skip
    return UnboundedCache(**{**given, **options})


def knn(**options: Any) -> KNNStore:
    given = {
        "lam": 0.1, "k": 5, "kernel": "rbf", "bandwidth": "fixed", "bandwidth_scale": 1.0, "theta": 1.0,
        "normalize": "none",
        "store": store(), "training_tokens": None, "folder": None, "grid": {},
    }  # fmt: skip
    memory = KNNStore(**{**given, **options})
    hidden_ND, words_N = stream(seed=99)
    memory.learn(iter([(hidden_ND, words_N)]), N)
    return memory


MAKE: dict[str, Callable[[], Memory]] = {
    "unigram": lambda: UnigramCache(0.1, {}),
    "uniform": lambda: UniformCache(0.1, {}),
    "local": local,
    "local l2": lambda: local(normalize="l2", theta=3.0),
    "local, no limit": lambda: local(size=None),
    "local, full window": lambda: local(cold_start="full_window"),
    "local, grid": lambda: local(grid={"size": [5, 20, None], "theta": [0.0, 1.0]}),
    "unbounded": unbounded,
    "unbounded, all": lambda: unbounded(k=None),
    "unbounded, epanechnikov": lambda: unbounded(kernel="epanechnikov", bandwidth_scale=1.5),
    "unbounded, dot": lambda: unbounded(kernel="dot", store=store(metric="dot")),
    "unbounded, layer norm": lambda: unbounded(normalize="layer_norm"),
    "unbounded, grid": lambda: unbounded(grid={"k": [1, 9], "bandwidth_scale": [0.5, 1.0]}),
    "unbounded, flat": lambda: unbounded(store=store(kind="faiss_flat")),
    "unbounded, lists": lambda: unbounded(store=store(kind="ivf_flat", num_probes=2)),
    "unbounded, codes": lambda: unbounded(store=store(kind="ivfpq", first_build=256)),
    "unbounded, first in first out": lambda: unbounded(store=store(capacity=40, evict="fifo")),
    "unbounded, surprisal": lambda: unbounded(store=store(capacity=40, evict="surprisal")),
    "unbounded, reservoir": lambda: unbounded(store=store(capacity=40, evict="reservoir")),
    "knn": knn,
}  # fmt: skip


def stream(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(N, D, generator=generator)
    return hidden_ND, torch.randint(V, (N,), generator=generator)


def read(memory: Memory, hidden_ND: Tensor, words_N: Tensor, chunk: int) -> Tensor:
    memory.reset(V)
    static_N = -torch.linspace(1, 2, len(words_N))
    parts = [
        memory.step(hidden_ND[a : a + chunk], words_N[a : a + chunk], static_N[a : a + chunk])
        for a in range(0, len(words_N), chunk)
    ]
    return Scores.join(parts).log_prob_SN


def assert_equal(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_numbers_do_not_depend_on_how_the_stream_is_cut(name: str, chunk: int) -> None:
    hidden_ND, words_N = stream()
    whole = read(MAKE[name](), hidden_ND, words_N, N)
    assert_equal(read(MAKE[name](), hidden_ND, words_N, chunk), whole)
    assert torch.isfinite(whole).any()


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("chunk", [13, N])
def test_the_future_never_changes_the_past(name: str, chunk: int) -> None:
    hidden_ND, words_N = stream()
    before = read(MAKE[name](), hidden_ND, words_N, chunk)
    for place in (0, 1, 15, 16, 70, N - 1):
        other_ND, other_N = hidden_ND.clone(), words_N.clone()
        other_ND[place + 1 :], other_N[place + 1 :] = 3 * torch.randn(N - place - 1, D), 0
        after = read(MAKE[name](), other_ND, other_N, chunk)
        assert_equal(after[:, : place + 1], before[:, : place + 1])


@pytest.mark.parametrize("name", MAKE)
def test_a_token_is_scored_before_it_is_learnt(name: str) -> None:
    """Over all words that may come next, the probabilities of a memory that is not empty sum to one."""
    hidden_ND, words_N = stream()
    memory, chunk = MAKE[name](), 30
    total_SN: Any = 0
    for word in range(V):
        memory.reset(V)
        memory.step(hidden_ND[:-chunk], words_N[:-chunk], torch.zeros(N - chunk))
        total_SN = (
            total_SN + memory.score(hidden_ND[-chunk:][:1], torch.tensor([word])).log_prob_SN.exp()
        )
    assert_equal(total_SN, torch.ones_like(total_SN))


@pytest.mark.parametrize("name", MAKE)
def test_a_saved_memory_goes_on_to_the_same_bits(name: str, tmp_path: Any) -> None:
    hidden_ND, words_N = stream()
    memory, other, half = MAKE[name](), MAKE[name](), 75
    read(memory, hidden_ND[:half], words_N[:half], 10)
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    rest = hidden_ND[half:], words_N[half:], torch.zeros(N - half)
    torch.testing.assert_close(
        other.step(*rest).log_prob_SN,
        memory.step(*rest).log_prob_SN,
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def softmax_memory(hidden_ND: Tensor, words_N: Tensor, size: int | None, weight: Any) -> np.ndarray:
    """Eq. 3 of Grave et al. 2017, a token at a time."""
    hidden, words, found = hidden_ND.double().numpy(), words_N.numpy(), []
    for t in range(len(words)):
        past = range(0 if size is None else max(0, t - size), t)
        weights = np.array([weight(hidden[t], hidden[i]) for i in past])
        hits = np.array([words[i] == words[t] for i in past])
        with np.errstate(divide="ignore"):
            found.append(np.log(weights[hits].sum() / weights.sum()) if len(weights) else np.nan)
    return np.array(found)


@pytest.mark.parametrize("size", [1, 20, None])
@pytest.mark.parametrize("theta", [0.0, 0.7])
def test_local_is_its_equation(size: int | None, theta: float) -> None:
    hidden_ND, words_N = stream()
    expected_N = softmax_memory(hidden_ND, words_N, size, lambda h, g: math.exp(theta * h @ g))
    found_N = read(local(size=size, theta=theta), hidden_ND, words_N, 40)[0]
    np.testing.assert_allclose(found_N.numpy(), expected_N, atol=1e-5)


def neighbours(hidden_ND: Tensor, words_N: Tensor, k: int, kernel: str, scale: float) -> np.ndarray:
    """Section 1.4 of the specification, a token at a time."""
    hidden, words, found = hidden_ND.double().numpy(), words_N.numpy(), []
    for t in range(len(words)):
        distance = np.linalg.norm(hidden[:t] - hidden[t], axis=1)
        near = np.argsort(distance, kind="stable")[:k]
        if not len(near):
            found.append(np.nan)
            continue
        x = distance[near] / (scale * distance[near].max())
        weight = np.exp(-(x**2) / 2) if kernel == "gaussian" else np.maximum(0, 1 - x**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.log(weight[words[near] == words[t]].sum() / weight.sum()))
    return np.array(found)


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov"])
def test_unbounded_is_its_equation(kernel: str) -> None:
    hidden_ND, words_N = stream()
    memory = unbounded(k=9, kernel=kernel, bandwidth_scale=1.3)
    found_N = read(memory, hidden_ND, words_N, 40)[0]
    expected_N = neighbours(hidden_ND, words_N, 9, kernel, 1.3)
    np.testing.assert_allclose(found_N.numpy(), expected_N, atol=1e-4)


def test_unbounded_without_limits_is_a_local_cache_without_window() -> None:
    hidden_ND, words_N = stream()
    memory = unbounded(k=None, kernel="dot", theta=0.4, store=store(metric="dot"))
    expected = read(local(size=None, theta=0.4), hidden_ND, words_N, 50)
    assert_equal(read(memory, hidden_ND, words_N, 50), expected)


def test_a_gaussian_of_unit_states_is_a_dot_product() -> None:
    """exp(-|h - g|^2 / (2 theta^2)) of unit vectors is exp(h.g / theta^2) up to a constant."""
    hidden_ND, words_N = stream()
    memory = unbounded(k=None, normalize="l2", bandwidth="fixed", theta=0.8)
    expected = read(local(size=None, normalize="l2", theta=0.8**-2), hidden_ND, words_N, 50)
    assert_equal(read(memory, hidden_ND, words_N, 50), expected)


def test_rbf_is_a_gaussian_of_another_width() -> None:
    hidden_ND, words_N = stream()
    rbf = read(unbounded(kernel="rbf", theta=1.0), hidden_ND, words_N, 50)
    gaussian = unbounded(bandwidth="fixed", theta=1 / math.sqrt(2))
    assert_equal(rbf, read(gaussian, hidden_ND, words_N, 50))


def test_exact_search_finds_what_faiss_finds() -> None:
    hidden_ND, words_N = stream()
    exact, flat = unbounded(), unbounded(store=store(kind="faiss_flat", first_build=16))
    assert_equal(read(exact, hidden_ND, words_N, 50), read(flat, hidden_ND, words_N, 50))


def test_every_setting_of_a_grid_is_what_it_would_be_alone() -> None:
    hidden_ND, words_N = stream()
    both = unbounded(grid={"k": [2, 9], "kernel": ["gaussian", "epanechnikov"]})
    scores_SN = read(both, hidden_ND, words_N, 50)
    for row, setting in enumerate(both.settings):
        alone = unbounded(**{key: setting[key] for key in ("k", "kernel")})
        assert_equal(scores_SN[row : row + 1], read(alone, hidden_ND, words_N, 50))


def test_equal_states_weigh_the_same() -> None:
    words_N = torch.tensor([0, 1, 1, 1, 0, 1])
    for memory in (unbounded(), unbounded(kernel="epanechnikov"), local()):
        scores = read(memory, torch.ones(6, D), words_N, 3)[0].exp()
        expected = torch.tensor([math.nan, 0, 1 / 2, 2 / 3, 1 / 4, 3 / 5])
        assert_equal(scores, expected)


@pytest.mark.parametrize("normalize", ["none", "l2"])
def test_equal_states_are_told_apart_by_age_however_the_stream_is_cut(normalize: str) -> None:
    """With many ties, the k nearest must not depend on where a state happens to wait."""
    hidden_ND, words_N = stream()
    hidden_ND = hidden_ND[:20].repeat(15, 1)  # 15: exact search tells k + 16 ties apart
    found = [
        read(unbounded(normalize=normalize, k=4), hidden_ND, words_N, chunk)
        for chunk in (1, 7, 64, N)
    ]
    for other in found[1:]:
        assert_equal(other, found[0])


def test_near_states_keep_their_distance_while_they_wait() -> None:
    """Squared norms of 1,800 and distances of 0.1: an expanded square in float32 would lose them."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND = 15 + 0.01 * torch.randn(N, D, generator=generator)
    _, words_N = stream()
    options = {"k": 4, "kernel": "rbf", "theta": 1e-3}
    waiting = read(unbounded(period=10**6, **options), hidden_ND, words_N, 50)
    stored = read(unbounded(period=1, **options), hidden_ND, words_N, 50)
    torch.testing.assert_close(waiting, stored, atol=2e-3, rtol=1e-3, equal_nan=True)


def test_one_token() -> None:
    hidden_ND, words_N = stream()
    for name, make in MAKE.items():
        score = read(make(), hidden_ND[:1], words_N[:1], 1)
        assert score.shape[1] == 1
        assert torch.isnan(score).all() or name in ("uniform", "knn")


def test_knn_with_one_key_gives_its_word() -> None:
    hidden_ND, words_N = stream()
    memory = KNNStore(0.1, 1024, "rbf", "fixed", 1.0, 1.0, "none", store(), None, None, {})
    memory.learn(iter([(hidden_ND[:1], words_N[:1])]), 1)
    score = read(memory, hidden_ND, words_N, 50)[0].exp()
    assert_equal(score, (words_N == words_N[0]).float())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_states_that_are_no_numbers_are_refused(bad: float) -> None:
    hidden_ND, words_N = stream()
    hidden_ND[3, 2] = bad
    for name in ("local", "unbounded", "knn"):
        with pytest.raises(UserError, match="1 of 300 states"):
            read(MAKE[name](), hidden_ND, words_N, N)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: local(lam=1.5), "cache.lam=1.5"),
        (lambda: local(size=0), "cache.size=0"),
        (lambda: local(normalize="l3"), "none, l2, layer_norm, pca"),
        (lambda: local(cold_start="warm"), "immediate or full_window"),
        (lambda: local(grid={"thetas": [1]}), "Did you mean theta"),
        (lambda: unbounded(kernel="gauss"), "choose one of dot, gaussian"),
        (lambda: unbounded(kernel="dot"), "cache.store.metric=dot"),
        (lambda: unbounded(bandwidth="wide"), "kth, fixed"),
        (lambda: unbounded(k=0), "cache.k=0"),
        (lambda: unbounded(theta=0.0), "cache.theta=0.0"),
        (lambda: unbounded(period=0), "cache.period=0"),
        (lambda: Mixture({}), "cache.components is empty"),
        (lambda: Mixture({"a": Mixture({"b": local()})}), "holds a mixture"),
    ],
)
def test_mistakes_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_memories_are_named_for_the_record() -> None:
    assert list(local().memories) == ["local"]
    assert list(unbounded().memories) == ["unbounded"]
    assert list(knn().memories) == ["knn"]
    assert NoCache().memories == {}
    assert list(Mixture({"near": local(), "far": unbounded()}).memories) == ["near", "far"]


def test_a_normalizer_whitens_what_it_was_fitted_to() -> None:
    hidden_ND, _ = stream()
    memory = local(normalize="pca")
    skewed_ND = hidden_ND @ torch.randn(D, D) + 5
    memory.learn(iter([(skewed_ND, torch.zeros(N))]), N)
    white_ND = memory.normalizer(skewed_ND)
    assert_equal(white_ND.mean(0), torch.zeros(D), atol=1e-4)
    assert_equal(torch.cov(white_ND.T), torch.eye(D), atol=1e-3)


def recurring(num_tokens: int, num_contexts: int, gap: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Contexts that come back after some `gap` tokens, each followed by a word of its own: what a static model that
    does not know these words calls uniform."""
    generator = torch.Generator().manual_seed(seed)
    context_C = torch.randn(num_contexts, D, generator=generator)
    word_C = torch.randint(V, (num_contexts,), generator=generator)
    if gap == 1:  # a document: few contexts at a time
        topic_N = torch.arange(num_tokens) // 40 % num_contexts
    else:
        topic_N = torch.randint(num_contexts, (num_tokens,), generator=generator)
    noise_ND = 0.1 * torch.randn(num_tokens, D, generator=generator)
    return context_C[topic_N] + noise_ND, word_C[topic_N]


def best_nll(log_prob_N: Tensor) -> float:
    """With the best weight beside a uniform static model."""
    given = log_prob_N.double().nan_to_num(nan=-math.log(V)).exp()
    weights = torch.linspace(0, 1, 101)[:-1, None].double()
    return -float(((1 - weights) / V + weights * given).log().mean(1).max())


def test_shuffled_streams_need_a_long_memory_and_documents_do_not() -> None:
    """The claim of Grave, Cisse and Joulin 2017: shuffled, unbounded < local <= static; in order, both are close."""
    shuffled, ordered = recurring(3000, 200, gap=200), recurring(3000, 200, gap=1)
    near, far = local(size=20, theta=2.0), unbounded(k=5, bandwidth_scale=0.5)
    nll = {
        (name, memory.name): best_nll(read(memory, *stream, 300)[0])
        for name, stream in (("shuffled", shuffled), ("ordered", ordered))
        for memory in (near, far)
    }
    static = math.log(V)
    assert nll["shuffled", "unbounded"] < 0.6 * nll["shuffled", "local"]
    assert 0.85 * static < nll["shuffled", "local"] <= static
    assert nll["ordered", "local"] < 0.3 * static
    assert nll["ordered", "unbounded"] < 0.3 * static


def test_nothing_is_gained_on_words_drawn_at_random() -> None:
    hidden_ND, words_N = stream(seed=5)
    for memory in (local(), unbounded(), UnigramCache(0.1, {})):
        assert best_nll(read(memory, hidden_ND, words_N, 50)[0]) > math.log(V) - 0.03


@pytest.mark.gpu
@pytest.mark.parametrize("name", MAKE)
def test_a_gpu_gives_the_same_numbers(name: str) -> None:
    hidden_ND, words_N = stream()
    on_cpu = read(MAKE[name](), hidden_ND, words_N, 40)
    memory = MAKE[name]()
    memory.reset(V)
    static_N = -torch.linspace(1, 2, N).cuda()
    on_gpu = memory.step(hidden_ND.cuda(), words_N.cuda(), static_N).log_prob_SN
    assert_equal(on_gpu.cpu(), on_cpu, atol=1e-4)
