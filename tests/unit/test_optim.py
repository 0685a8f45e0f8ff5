"""NT-ASGD and the schedules against plain loops and torch's own ASGD."""

import copy

import numpy as np
import pytest
import torch

from lit_seqlm.optim.ntasgd import NTASGD, nonmonotone
from lit_seqlm.optim.schedule import constant_then_decay, warmup_cosine, warmup_linear


def options(**given: object) -> dict:
    return {
        "lr": 0.1,
        "weight_decay": 0.01,
        "nonmono": 5,
        "switch_epoch": None,
        "asgd_compat": False,
    } | given


def train(
    optimizer: torch.optim.Optimizer,
    weight: torch.Tensor,
    steps: int,
    rates: list[float] | None = None,
) -> list:
    """Steps on a fixed quadratic; the iterates in float64."""
    iterates = []
    for step in range(steps):
        if rates:
            optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.zero_grad()
        (weight - torch.arange(3.0)).square().sum().backward()
        optimizer.step()
        iterates.append(weight.detach().double().clone())
    return iterates


def test_the_trigger_fires_where_the_rule_says() -> None:
    history = [100.0, 90, 80, 79, 78, 77]
    assert not nonmonotone(history[:5], 200.0, 5), "no more than n validations: never"
    assert nonmonotone(history, 100.5, 5), "worse than the best of all but the last five (100)"
    assert not nonmonotone(history, 95.0, 5), (
        "worse than recent ones, better than the best before them"
    )
    assert not nonmonotone(history, 100.0, 5), "equal is not worse"


def test_a_hand_made_history_switches_once() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = NTASGD([weight], **options(nonmono=2))
    answers = [optimizer.observe(value) for value in (10.0, 9.0, 8.0, 8.5, 9.5, 8.6, 30.0)]
    assert answers == [False, False, False, False, True, False, False]
    assert optimizer.averaging


def test_a_fixed_switch_does_not_wait() -> None:
    optimizer = NTASGD([torch.nn.Parameter(torch.zeros(3))], **options(switch_epoch=2))
    assert [optimizer.observe(value) for value in (3.0, 2.0, 1.0)] == [False, True, False]


def test_before_the_switch_it_is_sgd() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    one = train(NTASGD([ours], **options()), ours, 5)
    other = train(torch.optim.SGD([theirs], lr=0.1, weight_decay=0.01), theirs, 5)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_average_is_the_mean_of_the_iterates() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = NTASGD([weight], **options(switch_epoch=0))
    iterates = train(optimizer, weight, 50)
    last = weight.detach().clone()
    optimizer.swap_average()
    torch.testing.assert_close(
        weight.detach().double(), torch.stack(iterates).mean(0), rtol=1e-6, atol=1e-6
    )
    optimizer.swap_average()
    assert torch.equal(weight, last), "the second swap brings the weights back"


@pytest.mark.parametrize("rates", [None, [0.05, 0.12, 0.03, 0.1, 0.07, 0.1, 0.02, 0.09]])
def test_asgd_compat_is_torch_asgd(rates: list[float] | None) -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = NTASGD([ours], **options(switch_epoch=0, asgd_compat=True))
    peer = torch.optim.ASGD([theirs], lr=0.1, t0=0, lambd=0.0, weight_decay=0.01)
    one, other = train(optimizer, ours, 8, rates), train(peer, theirs, 8, rates)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    optimizer.swap_average()
    torch.testing.assert_close(ours.detach(), peer.state[theirs]["ax"], rtol=1e-6, atol=1e-7)


def test_history_and_averages_survive_a_checkpoint() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = NTASGD([weight], **options(nonmono=1))
    for value in (3.0, 2.0, 4.0):
        optimizer.observe(value)
    train(optimizer, weight, 3)
    other_weight = torch.nn.Parameter(weight.detach().clone())
    other = NTASGD([other_weight], **options(nonmono=1))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.averaging
    assert other.param_groups[0]["history"] == [3.0, 2.0, 4.0]
    train(optimizer, weight, 3)
    train(other, other_weight, 3)
    optimizer.swap_average(), other.swap_average()
    assert torch.equal(weight, other_weight)


def test_constant_then_decay_is_zarembas_schedule() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = constant_then_decay(optimizer, constant_epochs=4, factor=0.5)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1, 1, 1, 1, 0.5, 0.25, 0.125]


def test_warmup_cosine_ends() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, warmup_steps=4, total_steps=20, floor=0.1)
    rates = []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_warmup_linear_is_megatrons_line() -> None:
    """Up to the rate, down to a tenth of it where the decay ends, and level from there on."""
    rate, lowest, warmup, end = 1e-4, 1e-5, 99, 9900
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = warmup_linear(optimizer, warmup_steps=warmup, total_steps=end, floor=lowest / rate)
    rates = []
    for _ in range(10_000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    corners = np.interp(np.arange(10_000), [-1, warmup - 1, end], [0, rate, lowest])
    corners[warmup:end] = np.interp(np.arange(warmup, end), [warmup, end], [rate, lowest])
    assert rates == pytest.approx(corners.tolist(), rel=1e-9)
