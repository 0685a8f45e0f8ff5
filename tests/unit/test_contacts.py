"""Five definitions of contact precision on hand-made maps, and against loops that follow the official codes."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_seqlm.errors import DivergedError
from lit_seqlm.metrics.contact_precision import ContactPrecision, learnt_ranges
from lit_seqlm.metrics.contacts import (
    DEFINITIONS,
    Share,
    esm,
    mean_over_batches,
    plm_megatron,
    tape2019_analysis,
    tape2019_train,
    tape_torch,
    top,
)

Protein = tuple[np.ndarray, np.ndarray]
RANGES = {"local": (3, 5), "short": (6, 11), "medium": (12, 23), "long": (24, 10**9)}


def chain(length: int, background: float, *pairs: tuple[int, int, float, int]) -> Protein:
    """Symmetric maps of a few pairs (i, j, p, y); all others have the background and are no contacts."""
    score, label = np.full((length, length), background), np.zeros((length, length), np.int8)
    for i, j, p, y in pairs:
        score[[i, j], [j, i]], label[[i, j], [j, i]] = p, y
    return score, label


def unresolved(protein: Protein, *residues: int) -> Protein:
    score, label = protein[0].copy(), protein[1].copy()
    label[list(residues)] = -1
    label[:, list(residues)] = -1
    return score, label


def drawn(length: int, seed: int, missing: float = 0.1) -> Protein:
    """Symmetric maps with distinct scores of pairs, contacts the more the higher they are, some unresolved."""
    rng = np.random.default_rng(seed)
    score = np.zeros((length, length))
    upper = np.triu_indices(length, 1)
    score[upper] = rng.permutation(len(upper[0])) / len(upper[0]) * 0.9 + 0.05
    score += score.T
    label = (rng.random((length, length)) < score**4).astype(np.int8)
    label = np.triu(label, 1) + np.triu(label, 1).T
    return unresolved((score, label), *np.flatnonzero(rng.random(length) < missing))


# -- the hand-made example: 20 residues, the last one unresolved

TWENTY = unresolved(
    chain(
        20, 0.1,
        (0, 6, 0.9, 1),  # apart 6: short
        (1, 8, 0.8, 0),  # apart 7: short
        (2, 10, 0.7, 1),  # apart 8: short
        (0, 13, 0.6, 1),  # apart 13: medium
        (3, 11, 0.4, 1),  # apart 8: short
        (4, 12, 0.3, 1),  # apart 8: short
        (5, 14, 0.2, 1),  # apart 9: short
        (0, 1, 0.99, 1),  # apart 1: for nobody
    ),
    19,
)  # fmt: skip


def test_five_definitions_give_five_answers() -> None:
    # A: the upper triangle, k = 20 // 5 = 4: .9 .8 .7 .6 are 1 0 1 1.
    assert tape_torch(*TWENTY) == Share(3, 4)
    # B, in a batch with a protein of 25 residues: k = 25 // 5 = 5 of both triangles: .9 .9 .8 .8 .7 are 1 1 0 0 1.
    assert tape2019_train(*TWENTY, longest=25) == Share(3, 5)
    # C, short: pairs 6 to 11 apart are 14 + 13 + 12 + 11 + 10 + 9 = 69, k = 69 // 5 = 13: the six above the background
    # and seven of it. Contacts among them: .9 .7 .4 .3 .2, of which .9 and .7 are above .5: 2 of 5.
    assert tape2019_analysis(*TWENTY)["short"] == 2 / 5
    # D: both triangles, k = 20 // 5 = 4: .9 .9 .8 .8 are 1 1 0 0.
    assert plm_megatron(*TWENTY) == Share(2, 4)
    # E, short: 19 residues are resolved, k = 19 // 5 = 3: .9 .8 .7 are 1 0 1.
    assert esm(*TWENTY)["short"]["p_at_l5"] == pytest.approx(2 / 3)
    answers = {3 / 4, 3 / 5, 2 / 5, 2 / 4, 2 / 3}
    assert len(answers) == 5 == len(DEFINITIONS)


def test_the_rest_of_the_example() -> None:
    """Every number of E and C, by counting."""
    found = esm(*TWENTY)
    # short: k = 19 // 2 = 9: six drawn pairs, five of them contacts, and three of the background.
    assert found["short"]["p_at_l2"] == pytest.approx(5 / 9)
    assert found["short"]["p_at_l"] == pytest.approx(5 / 19)
    # ks of L/10 to L: 1 3 5 7 9 11 13 15 17 19; contacts among the first 1: 1, 3: 2, 5: 4, then 5.
    right = [1, 2, 4, 5, 5, 5, 5, 5, 5, 5]
    ks = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    auc = sum(r / k for r, k in zip(right, ks, strict=True)) / 10
    assert found["short"]["auc"] == pytest.approx(auc)
    # medium: one contact, ranked first.
    assert found["medium"]["p_at_l5"] == pytest.approx(1 / 3)
    assert found["local"] == {"p_at_l": 0, "p_at_l2": 0, "p_at_l5": 0, "auc": 0}
    assert "long" not in found  # nobody is 24 apart
    # C, medium: 8 + 7 + ... + 1 = 36 pairs, k = 7: one contact, likely.
    assert tape2019_analysis(*TWENTY) == {"short": 2 / 5, "medium": 1.0}


# -- what is peculiar to each


def test_a_masked_score_is_zero_and_a_picked_pair_without_label_subtracts() -> None:
    """Scores of exactly 0 tie with all that is masked, and the map is read from its first row."""
    score, label = chain(20, 0.0, (0, 6, 0.9, 1))
    # k = 4: (0, 6), then (0, 0), (0, 1), (0, 2), which are near and have the label -1 in the data: 1 - 3.
    assert tape_torch(score, label) == Share(-2, 4)
    # Where all scores are above 0, nothing masked is picked.
    assert tape_torch(score + 0.01, label) == Share(1, 4)
    # Masked pairs of the lower triangle keep their label: with none above 0 but them, one is picked as it is.
    lower = np.zeros((20, 20))
    lower[6, 0] = 0.9
    assert tape_torch(lower, label) == Share(-4, 4)
    assert plm_megatron(lower, label) == Share(1, 4)  # D sees both triangles, and -1 counts 0


def test_a_is_pooled_in_a_batch_so_it_changes_with_the_batches() -> None:
    shares = np.array([tape_torch(*TWENTY), tape_torch(*chain(40, 0.1, (0, 6, 0.9, 1)))])
    np.testing.assert_array_equal(shares, [[3, 4], [1, 8]])
    assert mean_over_batches(shares, np.array([0, 0])) == pytest.approx(4 / 12)
    assert mean_over_batches(shares, np.array([5, 9])) == pytest.approx((3 / 4 + 1 / 8) / 2)
    assert mean_over_batches(np.zeros((2, 2)), np.array([0, 1])) is None
    assert mean_over_batches(np.array([[3, 4], [0, 0]]), np.array([0, 1])) == 3 / 4


def test_b_picks_each_pair_twice() -> None:
    """k = 4 are two pairs, of which the second is wrong: the third, right, comes with k = 6 alone."""
    assert tape2019_train(*TWENTY, longest=20) == Share(2, 4)
    assert tape2019_train(*TWENTY, longest=30) == Share(4, 6)
    # What has no label is not counted, however large k is: both triangles of 12 residues have 2 (6 + ... + 1) pairs.
    assert tape2019_train(*chain(12, 0.1, (0, 6, 0.9, 1)), longest=1000) == Share(2, 42)


def test_c_is_no_precision() -> None:
    confident = chain(20, 0.1, (0, 6, 0.9, 1), *((1, j, 0.8, 0) for j in range(7, 12)))
    # One contact, and it is likely: 1, though five of the first six are wrong.
    assert tape2019_analysis(*confident)["short"] == 1
    timid = (confident[0] * 0.5, confident[1])
    assert tape2019_analysis(*timid)["short"] == 0  # the same ranks, no p above .5
    nothing = chain(20, 0.9)
    assert tape2019_analysis(*nothing)["short"] == 0  # no contact among the k: 0 / k
    # Pairs without label take part: were they left out, k = 45 // 5 = 9 would not reach the rest.
    assert tape2019_analysis(*unresolved(timid, 0))["short"] == 0
    # 8 residues have 2 + 1 pairs 6 apart, 9 have 6: k = 1.
    assert tape2019_analysis(*chain(8, 0.9)) == {}
    assert tape2019_analysis(*chain(9, 0.1, (0, 6, 0.9, 1))) == {"short": 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_d_is_the_precision_at_a_tenth_of_unique_pairs(seed: int) -> None:
    """For symmetric scores and an even k."""
    score, label = drawn(60, seed)
    upper = np.triu_indices(60, 6)
    kept = label[upper] != -1
    best = np.argsort(-score[upper][kept], kind="stable")[: 60 // 10]
    share = plm_megatron(score, label)
    assert share.right / share.picked == label[upper][kept][best].mean()


def test_d_odd_k_cuts_a_pair_in_two() -> None:
    assert plm_megatron(*chain(25, 0.1, (0, 6, 0.9, 1), (0, 7, 0.8, 0), (0, 8, 0.7, 1))) == Share(3, 5)  # fmt: skip


def test_e_ignores_what_has_no_label() -> None:
    """Residues of unknown structure may stand anywhere and have any score."""
    score, label = drawn(50, 0, missing=0.0)
    padded = np.full((60, 60), 1.0), np.full((60, 60), -1, np.int8)
    padded[0][:50, :50], padded[1][:50, :50] = score, label
    assert esm(*padded) == esm(score, label)
    changed = unresolved((score, label), 7, 20)
    loud = changed[0].copy()
    loud[[7, 20]] = loud[:, [7, 20]] = 1
    assert esm(loud, changed[1]) == esm(*changed)


def test_fewer_candidates_than_k_count_as_wrong() -> None:
    """30 residues have 6 + 5 + ... + 1 = 21 long pairs, all of them contacts."""
    score, label = chain(30, 0.5)
    label[np.abs(np.subtract.outer(range(30), range(30))) >= 24] = 1
    found = esm(score, label)["long"]
    assert found["p_at_l"] == pytest.approx(21 / 30)
    assert found["p_at_l2"] == found["p_at_l5"] == 1


@pytest.mark.parametrize("length", [1, 2, 4, 5, 6, 7])
def test_short_proteins_have_no_number_and_no_nan(length: int) -> None:
    protein = chain(length, 0.5)
    values = [
        *tape_torch(*protein), *tape2019_train(*protein, longest=length), *plm_megatron(*protein),
        *tape2019_analysis(*protein).values(),
        *(value for found in esm(*protein).values() for value in found.values()),
    ]  # fmt: skip
    assert np.isfinite(values).all()
    if length < 5:
        assert tape_torch(*protein).picked == plm_megatron(*protein).picked == 0
    assert "p_at_l5" not in esm(*chain(4, 0.5))["local"]
    assert esm(*unresolved(protein, *range(length))) == {}


def test_ties_are_read_row_by_row() -> None:
    score = np.array([0.5, 0.7, 0.5, 0.7, 0.5])
    assert top(score, 4).tolist() == [1, 3, 0, 2]
    assert top(score, 9).tolist() == [1, 3, 0, 2, 4]
    assert top(score, 0).tolist() == top(score[:0], 3).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_top_is_a_stable_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, count = rng.integers(0, 6, 40) / 6, int(rng.integers(1, 45))
    assert top(score, count).tolist() == np.argsort(-score, kind="stable")[:count].tolist()


# -- against loops that go pair by pair


def ranked(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Labels by falling score, equal ones as they come."""
    return [label for _, label in sorted(pairs, key=lambda pair: -pair[0])]


def loops(batch: list[Protein]) -> dict[str, float | None]:
    """A, B and D of a batch from lists of pairs."""
    right, picked = dict.fromkeys("ABD", 0.0), dict.fromkeys("ABD", 0)
    longest = max(len(label) for _, label in batch)
    for score, label in batch:
        length = len(label)
        places = [(i, j) for i in range(length) for j in range(length)]
        known = {(i, j): label[i, j] if abs(i - j) >= 6 else -1 for i, j in places}
        a = [(score[p] if known[p] != -1 and p[1] > p[0] else 0.0, known[p]) for p in places]
        b = [(score[p], known[p]) for p in places if known[p] != -1]
        d = [(score[p] if known[p] != -1 else 0.0, max(known[p], 0)) for p in places]
        for name, pairs, k in (("A", a, length // 5), ("B", b, longest // 5), ("D", d, length // 5)):  # fmt: skip
            chosen = ranked(pairs)[:k]
            right[name] += sum(chosen)
            picked[name] += len(chosen)
    return {name: right[name] / picked[name] if picked[name] else None for name in right}


def esm_loop(protein: Protein, name: str) -> dict[str, float]:
    score, label = protein
    least, most = RANGES[name]
    resolved = sum(any(value != -1 for value in row) for row in label)
    pairs = [(score[i, j], label[i, j]) for i in range(len(label)) for j in range(i + 1, len(label))
             if least <= j - i <= most and label[i, j] != -1]  # fmt: skip
    if not pairs:
        return {}
    labels = ranked(pairs)
    at = {k: sum(labels[:k]) / k for k in (resolved, resolved // 2, resolved // 5) if k}
    deciles = [k for k in (math.floor(tenth * resolved / 10) for tenth in range(1, 11)) if k]
    return {
        "p_at_l": at[resolved], "p_at_l2": at[resolved // 2], "p_at_l5": at[resolved // 5],
        "auc": sum(sum(labels[:k]) / k for k in deciles) / len(deciles),
    }  # fmt: skip


def batched(proteins: list[Protein], rows: list[int], extra: int = 0) -> tuple[Tensor, ...]:
    """By token: one before the first residue, one behind the last, then padding that shouts."""
    width = max(len(label) for _, label in proteins) + 2 + extra
    scores, labels = torch.ones(len(proteins), width, width), torch.full((len(proteins), width, width), -1)  # fmt: skip
    scores = scores.double()
    for place, (score, label) in enumerate(proteins):
        inner = slice(1, 1 + len(label))
        scores[place, inner, inner] = torch.from_numpy(score)
        labels[place, inner, inner] = torch.from_numpy(label).long()
    return scores, labels, torch.tensor(rows), torch.tensor([len(label) for _, label in proteins])


PROTEINS = [drawn(length, seed) for seed, length in enumerate([40, 64, 27, 33, 51, 12])]
BATCHES = [[0, 1], [2, 3, 4], [5]]


def computed(batches: list[list[int]], extra: int = 0) -> ContactPrecision:
    metric = ContactPrecision()
    for rows in batches:
        metric.update(*batched([PROTEINS[row] for row in rows], rows, extra))
    return metric


def test_the_metric_equals_loops_over_pairs() -> None:
    numbers = computed(BATCHES).compute()
    by_batch = [loops([PROTEINS[row] for row in rows]) for rows in BATCHES]
    for name, definition in (
        ("tape_torch", "A"),
        ("tape2019_train", "B"),
        ("plm_megatron_log", "D"),
    ):
        expected = np.mean([found[definition] for found in by_batch])
        assert numbers[f"p_at_l5_{name}"] == pytest.approx(expected, abs=1e-12), name
    assert numbers["p_at_l5_plm_megatron"] == pytest.approx(loops(PROTEINS)["D"])
    for name in RANGES:
        found = [values for protein in PROTEINS if (values := esm_loop(protein, name))]
        assert numbers[f"proteins_esm_{name}"] == len(found)
        for key in ("p_at_l", "p_at_l2", "p_at_l5", "auc"):
            expected = np.mean([values[key] for values in found])
            assert numbers[f"{key}_esm_{name}"] == pytest.approx(expected, abs=1e-12), (key, name)
    assert numbers["proteins"] == 6
    assert all(math.isfinite(value) for value in numbers.values())


def test_what_depends_on_batches_padding_and_order() -> None:
    first = computed(BATCHES).compute()
    other = computed([[5, 3], [1], [4, 0, 2]], extra=9).compute()
    different = {name for name in first if first[name] != pytest.approx(other[name], abs=1e-12)}
    by_batch = ("tape_torch", "tape2019_train", "plm_megatron_log")
    assert different == {f"p_at_l5_{name}" for name in by_batch}
    assert computed(BATCHES, extra=9).compute() == first


def test_sums_over_the_set_are_not_the_training_log() -> None:
    """D of two proteins, one batch each: (2 + 2) / (4 + 8) and the mean of 2/4 and 2/8."""
    metric = ContactPrecision()
    for row, protein in enumerate([TWENTY, chain(40, 0.1, (0, 6, 0.9, 1))]):
        metric.update(*batched([protein], [row]))
    numbers = metric.compute()
    assert numbers["p_at_l5_plm_megatron"] == pytest.approx(4 / 12)
    assert numbers["p_at_l5_plm_megatron_log"] == pytest.approx((2 / 4 + 2 / 8) / 2)


def test_the_metric_counts_what_it_left_out() -> None:
    metric = ContactPrecision()
    assert metric.compute() == {}
    metric = ContactPrecision()
    tiny, unknown = chain(5, 0.5), unresolved(chain(30, 0.5), *range(30))
    metric.update(*batched([TWENTY, tiny, unknown], [0, 1, 2]))
    metric.update(*batched([unknown], [2]))  # a batch that only keeps step with other processes
    numbers = metric.compute()
    assert (numbers["proteins"], numbers["proteins_without_pairs"]) == (2, 1)
    assert numbers["proteins_esm_long"] == 0
    assert "p_at_l5_esm_long" not in numbers
    assert (numbers["proteins_esm_local"], numbers["proteins_esm_short"]) == (2, 1)


def test_intervals_are_over_proteins() -> None:
    metric = computed(BATCHES)
    rows, column = metric.per_protein()
    assert rows.tolist() == list(range(6))
    assert column["p_at_l5_esm_short"][1] == pytest.approx(esm(*PROTEINS[1])["short"]["p_at_l5"])
    numbers = metric.compute()
    for name in ("p_at_l5_esm_short", "p_at_l5_plm_megatron"):
        assert numbers[f"{name}_low"] <= numbers[name] <= numbers[f"{name}_high"]
        assert metric.interval(name).mean == pytest.approx(numbers[name])
    same = ContactPrecision()
    for row in range(3):
        same.update(*batched([TWENTY], [row]))
    found = same.interval("p_at_l5_esm_short")
    assert found.low == found.high == found.mean == pytest.approx(2 / 3)


def test_every_mean_over_proteins_has_an_interval() -> None:
    metric = computed(BATCHES)
    numbers, (_, column) = metric.compute(), metric.per_protein()
    means = [name for name in numbers if name in column]
    kinds = (
        "p_at_l5_tape2019_analysis_",
        "p_at_l5_esm_",
        "p_at_l2_esm_",
        "p_at_l_esm_",
        "auc_esm_",
    )
    assert all(any(name.startswith(kind) for name in means) for kind in kinds)
    for name in means:
        known = column[name][~np.isnan(column[name])]
        drawn = np.random.default_rng(0).integers(len(known), size=(1000, len(known)))
        ends = np.percentile([known[places].mean() for places in drawn], (2.5, 97.5))
        assert [numbers[f"{name}_low"], numbers[f"{name}_high"]] == pytest.approx(ends)


def test_copies_of_a_protein_are_drawn_together() -> None:
    once, copied = computed(BATCHES), ContactPrecision(same_N=np.tile(np.arange(6), 2))
    for first in (0, 6):
        for rows in BATCHES:
            given = batched([PROTEINS[row] for row in rows], [first + row for row in rows])
            copied.update(*given)
    one, two = once.compute(), copied.compute()
    assert (two.pop("proteins"), one.pop("proteins")) == (12, 6)
    assert two["distinct_proteins"] == 6
    same = {name for name in one if not name.startswith("proteins")}
    assert {name: two[name] for name in same} == pytest.approx({name: one[name] for name in same})
    assert "p_at_l5_esm_short_low" in same


def test_one_protein_has_no_interval() -> None:
    metric = ContactPrecision()
    metric.update(*batched([TWENTY], [0]))
    numbers = metric.compute()
    assert numbers["p_at_l5_esm_short"] == pytest.approx(2 / 3)
    assert not [name for name in numbers if name.endswith(("_low", "_high"))]


def test_a_row_given_twice_counts_once() -> None:
    metric = computed(BATCHES)
    expected = metric.compute()
    again = computed([*BATCHES, BATCHES[0]])
    assert again.compute() == expected
    again.reset()
    assert again.compute() == {}


def test_a_probability_that_is_none_is_a_divergence() -> None:
    scores, *rest = batched([TWENTY], [0])
    with pytest.raises(DivergedError, match="probabilities of contacts are not finite"):
        ContactPrecision().update(scores * math.nan, *rest)


def test_a_split_takes_seconds() -> None:
    """25 proteins of 256 residues, a twentieth of a test set."""
    metric, protein = ContactPrecision(), drawn(256, 0)
    given = batched([protein] * 5, list(range(5)))
    start = time.process_time()
    for step in range(5):
        metric.update(given[0], given[1], given[2] + 5 * step, given[3])
    metric.compute()
    assert time.process_time() - start < 3


def test_a_range_that_was_not_learnt_has_no_numbers() -> None:
    """3 to 5 apart, where training leaves out all nearer than 6; other numbers are what they were."""
    every = computed(BATCHES).compute()
    metric = ContactPrecision(learnt_from=6)
    for rows in BATCHES:
        metric.update(*batched([PROTEINS[row] for row in rows], rows))
    numbers = metric.compute()
    assert numbers == {name: value for name, value in every.items() if "local" not in name}
    assert len(numbers) < len(every)
    assert learnt_ranges(5) == list(RANGES)  # of pairs 3 to 5 apart, the farthest were learnt
    assert learnt_ranges(24) == ["long"]
