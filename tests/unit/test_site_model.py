"""Heads on trunks, on the tokens themselves and on kept states; what labels of sites cost."""

# B = sequences, T = tokens, D = hidden size, C = classes

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.head.contact_tape_torch import ContactTapeTorch
from lit_seqlm.head.gaussian import GaussianHead
from lit_seqlm.head.linear import LinearHead
from lit_seqlm.head.residue_linear import ResidueLinear
from lit_seqlm.model.one_hot import OneHot
from lit_seqlm.model.site_model import SiteModel
from lit_seqlm.objective.classes import SiteClasses
from lit_seqlm.task.states import token_states

HEADS: dict[str, Any] = {
    "residue": partial(ResidueLinear, dropout=0.0),
    "pair": partial(ContactTapeTorch, dropout=0.0),
    "chain": partial(LinearHead, pooling="mean", dropout=0.0),
}
SHAPES = {"residue": (3, 7, 2), "pair": (3, 7, 7, 2), "chain": (3, 2)}


def loop(logits: Tensor, sites: Tensor) -> tuple[float, int]:
    """Sum of -log p in pure Python, and how many there are."""
    total, count = 0.0, 0
    for row, label in zip(logits.flatten(0, -2).tolist(), sites.flatten().tolist(), strict=True):
        if label >= 0:
            total += math.log(sum(math.exp(x) for x in row)) - row[label]
            count += 1
    return total, count


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 4, 3), (6, 3)])
def test_the_loss_is_a_sum_over_labelled_sites(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits, sites = torch.randn(shape), torch.randint(-2, 3, shape[:-1])
    found = SiteClasses()(logits, sites)
    total, count = loop(logits, sites)
    assert found.sum.dtype == torch.float64
    assert float(found.sum) == pytest.approx(total, rel=1e-6)
    assert found.count == count
    likeliest = logits.argmax(-1)[sites >= 0]
    assert found.hits_N.tolist() == (likeliest == sites[sites >= 0]).tolist()


def test_micro_batches_add_up_to_the_whole() -> None:
    """Gradients too, however the sequences are cut."""
    torch.manual_seed(0)
    model = SiteModel.on(OneHot(9), HEADS["residue"], "residue", 3)
    tokens_BT, sites_BT = torch.randint(0, 9, (6, 8)), torch.randint(-1, 3, (6, 8))
    whole = SiteClasses()(model(tokens_BT), sites_BT)
    whole.mean.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    for sizes in ([1, 5], [2, 2, 2], [6]):
        model.zero_grad()
        parts = [
            SiteClasses()(model(t), s)
            for t, s in zip(tokens_BT.split(sizes), sites_BT.split(sizes), strict=True)
        ]
        assert float(sum(part.sum.detach() for part in parts)) == pytest.approx(
            float(whole.sum.detach()), rel=1e-9
        )
        count = sum(part.count for part in parts)
        assert count == whole.count
        for part in parts:
            (part.sum / count).backward()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_nothing_to_score_costs_nothing() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    found = SiteClasses()(logits, torch.full((2, 3), -1))
    found.mean.backward()
    assert found.count == 0
    assert float(found.sum.detach()) == 0.0
    assert not logits.grad.any()


@pytest.mark.parametrize("site", HEADS)
def test_every_kind_of_head_has_its_logits(site: str) -> None:
    model = SiteModel.on(OneHot(9), HEADS[site], site, 2)
    assert model(torch.randint(0, 9, (3, 7))).shape == SHAPES[site]


@pytest.mark.parametrize(
    ("site", "head", "message"),
    [
        ("pair", HEADS["residue"], r"labels are of pairs.*a head for residues: say head=contact_"),
        ("chain", HEADS["pair"], r"labels are of chains.*a head for pairs: say head=sequence_"),
        ("residue", HEADS["chain"], r"labels are of residues.*a head for chains: say head=residue"),
        ("chain", partial(GaussianHead, pooling="mean", dropout=0.0), "with a standard deviation"),
    ],
)
def test_a_head_for_other_sites_is_refused(site: str, head: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SiteModel.on(OneHot(9), head, site, 2)


def test_a_model_without_a_trunk_is_refused() -> None:
    with pytest.raises(UserError, match="has no trunk"):
        SiteModel.on(nn.Linear(2, 2), HEADS["chain"], "chain", 2)


def test_one_hot_is_one_hot_and_blank_on_padding() -> None:
    tokens_BT = torch.tensor([[2, 5, 0]])
    hidden_BTD = OneHot(6).trunk(tokens_BT, torch.tensor([[True, True, False]]))
    assert hidden_BTD[0].tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6]
    assert not list(OneHot(6).parameters())
    with pytest.raises(UserError, match="nothing to predict words with"):
        OneHot(6)(tokens_BT)


class Trunk(nn.Module):
    """Embeds a token with dropout: in training no two calls agree."""

    hidden_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(20, 4), nn.Dropout(0.5)
        self.num_calls = 0

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        self.num_calls += 1
        return self.dropout(self.embedding(tokens_BT))


def test_a_frozen_trunk_stays_in_eval_mode_and_has_no_gradients() -> None:
    model = SiteModel.on(SimpleNamespace(trunk=Trunk()), HEADS["residue"], "residue", 2, True)
    model.train()
    tokens_BT = torch.randint(0, 20, (2, 6))
    assert torch.equal(model(tokens_BT), model(tokens_BT))
    model(tokens_BT).sum().backward()
    assert model.trunk.embedding.weight.grad is None
    assert model.head.out.weight.grad is not None
    assert model.head.training


@pytest.mark.parametrize(("limit", "dtype"), [(1, torch.float32), (0, torch.float16)])
def test_kept_states_are_those_of_the_trunk(limit: int, dtype: torch.dtype) -> None:
    """Of every row, in any order and however it is padded; each sequence passes the trunk once."""
    rng = np.random.default_rng(0)
    table = TokenTable.of(rng.integers(1, 20, length) for length in (5, 2, 9, 4))

    def batch(rows: list[int], width: int) -> Batch:
        tokens_BT, valid_BT = table.pad(np.array(rows), 0, width)
        return Batch(tokens_BT, tokens_BT, valid_BT=valid_BT, rows_B=torch.tensor(rows))

    data: Any = SimpleNamespace(
        tables={"train": SimpleNamespace(tokens=table)},
        exact_dataloader=lambda split: [batch([1, 3], 1), batch([0, 2], 1)],
    )
    trunk = Trunk().eval()
    states = token_states(trunk, data, "train", torch.device("cpu"), limit)
    assert trunk.num_calls == 2
    assert states.states_ND.dtype == dtype
    asked = batch([2, 0, 1], 12)
    hidden_BTD = states.of(asked.rows_B, 12, torch.device("cpu"))
    wanted_BTD = trunk(asked.tokens_BT) * asked.valid_BT[..., None]
    assert hidden_BTD.dtype == torch.float32
    torch.testing.assert_close(hidden_BTD, wanted_BTD.detach(), atol=2e-3, rtol=1e-3)
    if dtype == torch.float32:
        assert torch.equal(hidden_BTD, wanted_BTD)
