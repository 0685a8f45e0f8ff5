"""Perplexities of masked tokens against closed forms and a loop."""

import math

import numpy as np
import pytest
import torch

from lit_seqlm.metrics.masked_scores import DEFINITIONS, MaskedScores

STANDARD = list(range(5, 25))
# Composition of Swiss-Prot, in percent: A R N D C Q E G H I L K M F P S T W Y V (UniProt's release statistics).
PERCENT = (8.25, 5.53, 4.06, 5.46, 1.38, 3.93, 6.72, 7.07, 2.27, 5.91, 9.65, 5.80, 2.41, 3.86, 4.74, 6.65, 5.36, 1.10,
           2.92, 6.86)  # fmt: skip


def uniform(number: int, size: int = 25) -> torch.Tensor:
    return torch.full((number, size), -math.log(size))


def test_a_uniform_model_has_the_perplexity_of_its_alphabet() -> None:
    scores = MaskedScores([])
    targets = torch.arange(50) % 25
    scores.update(uniform(50), targets, torch.ones(50, dtype=torch.bool), torch.arange(50) // 5)
    found = scores.compute()
    for name in ("ppl", "ppl_hidden", "tape_perplexity", "tape_ece"):
        assert found[name] == pytest.approx(25, rel=1e-6), name
    assert found["expected_accuracy"] == pytest.approx(0.04)
    assert found["ppl_low"] == pytest.approx(found["ppl_high"]), "all sequences are alike"
    assert not {"ppl_standard", "ppl_standard_hidden"} & found.keys()
    assert (found["tokens"], found["sequences"]) == (50, 10)


def test_numbers_are_those_of_a_loop_however_batches_are_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(200, 32, generator=generator).double().log_softmax(-1)
    targets = torch.randint(5, 30, (200,), generator=generator)
    hidden = torch.rand(200, generator=generator) < 0.8
    owner = torch.arange(200) // 20
    whole, cut = MaskedScores(STANDARD), MaskedScores(STANDARD)
    whole.update(log_prob, targets, hidden, owner)
    for rows in torch.arange(200).split(33):
        cut.update(log_prob[rows], targets[rows], hidden[rows], owner[rows])
    found = whole.compute()
    assert found == cut.compute()
    nll, read, standard, entropies, right, both = [], [], [], [], [], []
    for row, target, is_hidden in zip(
        log_prob.numpy(), targets.tolist(), hidden.tolist(), strict=True
    ):
        nll.append(-row[target])
        read += [-row[target]] * is_hidden
        if target in STANDARD:
            standard.append(-row[target] + math.log(sum(math.exp(row[one]) for one in STANDARD)))
            both += standard[-1:] * is_hidden
        entropies.append(math.exp(-sum(math.exp(x) * x for x in row)))
        right.append(row.argmax() == target)
    assert found["ppl"] == pytest.approx(math.exp(np.mean(nll)))
    assert found["ppl_hidden"] == pytest.approx(math.exp(np.mean(read)))
    assert found["ppl_standard"] == pytest.approx(math.exp(np.mean(standard)))
    assert 0 < len(both) < min(len(read), len(standard))
    assert found["ppl_standard_hidden"] == pytest.approx(math.exp(np.mean(both)))
    assert found["tape_perplexity"] == pytest.approx(np.mean(entropies))
    assert found["tape_ece"] == pytest.approx(found["ppl"])
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["ppl_low"] < found["ppl"] < found["ppl_high"]


def test_a_uniform_model_has_the_perplexity_of_the_standard_letters_where_it_sees_none() -> None:
    """20, though it is sure of the residues it was shown; where none was hidden there is no such number."""
    log_prob, targets = uniform(40, 32), 5 + torch.arange(40) % 25
    hidden = torch.arange(40) < 30
    log_prob[~hidden] = torch.eye(32)[targets[~hidden]].log()
    scores, shown = MaskedScores(STANDARD), MaskedScores(STANDARD)
    scores.update(log_prob, targets, hidden, torch.arange(40) // 8)
    found = scores.compute()
    assert found["ppl_standard_hidden"] == pytest.approx(20, rel=1e-6)
    assert found["ppl_hidden"] == pytest.approx(32, rel=1e-6)
    assert found["ppl_standard"] < 19
    shown.update(log_prob, targets, torch.zeros_like(hidden), torch.arange(40) // 8)
    assert "ppl_standard_hidden" not in shown.compute()
    assert "over the 20" in DEFINITIONS["ppl_standard_hidden"]


def test_entropy_and_perplexity_agree_for_a_calibrated_model_alone() -> None:
    prob = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    targets = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    calibrated = MaskedScores([])
    calibrated.update(prob.log().repeat(100, 1), targets, targets >= 0, targets * 0)
    found = calibrated.compute()
    assert found["ppl"] == pytest.approx(found["tape_perplexity"])
    sure = MaskedScores([])
    sure.update(
        torch.tensor([0.98, 0.01, 0.01]).log().repeat(100, 1), targets, targets >= 0, targets * 0
    )
    assert sure.compute()["ppl"] > 2 * sure.compute()["tape_perplexity"]


def test_what_berts_masks_show_flatters_a_model_that_knows_frequencies_alone() -> None:
    """The number that `DEFINITIONS` tells: the best that can be said of a shown residue, by Bayes' rule."""
    prob = np.array([*PERCENT, *[1e-3] * 5])  # B, O, U, X and Z are rare
    prob /= prob.sum()
    joint = 0.5 * np.diag(prob) + 0.5 * np.outer(prob, np.full(len(prob), 1 / len(prob)))
    given_shown = joint / joint.sum(0)
    shown = -(joint * np.log(given_shown)).sum()
    hidden = -(prob * np.log(prob)).sum()
    assert math.exp(hidden) == pytest.approx(17.9, abs=0.1)
    assert math.exp(0.8 * hidden + 0.2 * shown) == pytest.approx(14.8, abs=0.15)
    assert "14.8" in DEFINITIONS["ppl"]
