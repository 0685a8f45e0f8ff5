"""Masking, batches under a budget, and the data module of masked language models."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from lit_seqlm.data.bucketing import budget_batches, exact_length_batches, padding_share
from lit_seqlm.data.masked import MaskedData
from lit_seqlm.data.masking import Masking, Vocabulary
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.model.layers.transformed_softmax import TransformedSoftmax
from lit_seqlm.model.output import Output
from lit_seqlm.objective.masked_lm import MaskedLM
from lit_seqlm.optim.ridge import ridge_path
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

VOCABULARY = Vocabulary(size=60, mask_id=3, special_ids=(0, 1, 2, 3, 59))


def masking(pool: str = "content") -> Masking:
    return Masking(rate=0.15, masked=0.8, replaced=0.1, random_pool=pool)


def test_shares_over_a_million_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(4, 59, (20_000, 52), generator=generator)
    tokens_BT[:, 0], tokens_BT[:, 50], tokens_BT[:, 51] = 0, 1, 2
    read_BT, selected_BT = masking()(tokens_BT, VOCABULARY, generator)
    content_BT = ~torch.isin(tokens_BT, torch.tensor(VOCABULARY.special_ids))
    assert not (selected_BT & ~content_BT).any()
    assert not torch.isin(read_BT[~content_BT], torch.arange(3, 59)).any()
    assert abs(float(selected_BT.sum() / content_BT.sum()) - 0.15) < 0.002
    read_N, were_N = read_BT[selected_BT], tokens_BT[selected_BT]
    is_mask = read_N == VOCABULARY.mask_id
    assert abs(float(is_mask.float().mean()) - 0.8) < 0.005
    # Of the replaced, one in 55 is the token itself by chance.
    assert abs(float((read_N == were_N).float().mean()) - (0.1 + 0.1 / 55)) < 0.005
    assert torch.equal(read_BT[~selected_BT], tokens_BT[~selected_BT])
    assert not torch.isin(read_N[~is_mask], torch.tensor(VOCABULARY.special_ids)).any()


def test_the_pool_of_all_ids_holds_special_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.full((2_000, 50), 7)
    read_BT, selected_BT = masking("all")(tokens_BT, VOCABULARY, generator)
    drawn = Counter(read_BT[selected_BT].tolist())
    assert {0, 1, 2, 59} <= set(drawn)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0.0, "masked": 0.8, "replaced": 0.1, "random_pool": "all"},
        {"rate": 0.15, "masked": 0.95, "replaced": 0.1, "random_pool": "all"},
        {"rate": 0.15, "masked": 0.8, "replaced": 0.1, "random_pool": "chemical"},
    ],
)
def test_masking_refuses(options: dict) -> None:
    with pytest.raises(UserError, match=r"data\.masking"):
        Masking(**options)


def test_budget_batches_hold_every_row_once_and_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 60, 50_000)
    batches = budget_batches(lengths, 4096, 8192, rng, multiple=8)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(50_000))
    for rows in batches:
        assert len(rows) * (-(-lengths[rows].max() // 8) * 8) <= 4096
    assert padding_share(lengths, budget_batches(lengths, 4096, 8192, rng, 1), 1) < 0.03
    widths = [lengths[rows].max() for rows in batches]
    assert np.abs(np.corrcoef(widths[:-1], widths[1:])[0, 1]) < 0.2, (
        "long batches must not come last"
    )


def test_a_row_longer_than_the_budget_is_a_batch() -> None:
    lengths = np.array([5, 100, 7])
    batches = budget_batches(lengths, 20, 10, np.random.default_rng(0), 1)
    assert sorted(map(list, batches), key=len) == [[1], [0, 2]]


def test_exact_length_batches_pad_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 22, 5_000)
    batches = exact_length_batches(lengths, 64, rng)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(5_000))
    assert max(map(len, batches)) == 64
    assert padding_share(lengths, batches, 1) < 0.01


def test_token_table_pads_on_the_right() -> None:
    table = TokenTable.of([[5, 6, 7], [8], [9, 10]])
    tokens_BT, valid_BT = table.pad(np.array([1, 0]), pad_id=2, multiple=4)
    assert tokens_BT.tolist() == [[8, 2, 2, 2], [5, 6, 7, 2]]
    assert valid_BT is not None
    assert valid_BT.tolist() == [[True, False, False, False], [True, True, True, False]]
    same, nothing = table.pad(np.array([0, 0]), pad_id=2)
    assert nothing is None
    assert same.tolist() == [[5, 6, 7]] * 2
    assert [row.tolist() for row in table.select(np.array([2, 1]))] == [[9, 10], [8]]


class Strings:
    name = "made"

    def digest(self) -> str:
        return ""

    def fetch(self) -> None: ...

    def sequences(self, split: str, tokenizer: SmilesTokenizer) -> list[str]:
        rng = np.random.default_rng(["train", "valid", "test"].index(split))
        made = ["C" * int(n) + "OCN"[int(n) % 3] for n in rng.integers(3, 30, 400)]
        return [*made, "%(1)", "C"]


def data(**changes: int) -> MaskedData:
    options = {"token_budget": 256, "eval_token_budget": 512, "window": 100, "multiple": 1,
               "min_len": 2, "max_len": 25, "seed": 1} | changes  # fmt: skip
    made = MaskedData(Strings(), SmilesTokenizer(None, "unk", False, 1), masking(), **options)
    made.setup()
    return made


def test_what_cannot_be_read_is_counted_and_left_out() -> None:
    made = data()
    kept = len(made.tables["train"])
    assert made.num_dropped["train"] == 402 - kept
    assert made.tables["train"].lengths.max() <= 27
    with pytest.raises(UserError, match="no sequence of train"):
        data(min_len=90, max_len=99)


def test_masks_change_with_the_epoch_but_not_in_validation() -> None:
    one, other = data(), data()
    for first, second in zip(one.val_dataloader(), other.val_dataloader(), strict=True):
        assert torch.equal(first.tokens_BT, second.tokens_BT)
    again = list(one.train_dataloader())
    for first, second in zip(again, other.train_dataloader(), strict=True):
        assert torch.equal(first.tokens_BT, second.tokens_BT), "the same seed and epoch"
    later = next(iter(data(seed=2).train_dataloader()))
    assert not torch.equal(later.tokens_BT, again[0].tokens_BT)


def test_a_loader_goes_on_where_it_was() -> None:
    whole = list(data().train_dataloader())
    loader = data().train_dataloader()
    head = list(islice(loader, 5))
    rest = data().train_dataloader()
    rest.load_state_dict(loader.state_dict())
    together = [*head, *rest]
    assert len(together) == len(whole)
    for first, second in zip(together, whole, strict=True):
        assert torch.equal(first.tokens_BT, second.tokens_BT)


def test_gathered_loss_is_the_full_loss_however_the_batch_is_cut() -> None:
    torch.manual_seed(0)
    head = TransformedSoftmax(60, 16, 1e-5).eval()
    made = data()
    batch = next(iter(made.train_dataloader()))
    hidden_BTD = torch.randn(*batch.tokens_BT.shape, 16)
    loss = MaskedLM(0.0, "plain")(
        Output(hidden_BTD, None, hidden_BTD), head, batch, NoRegularizer()
    )
    states_BTD = head.norm(torch.nn.functional.gelu(head.transform(hidden_BTD)))
    logits_BTV = states_BTD @ head.weight.T
    nll_BT = torch.nn.functional.cross_entropy(
        logits_BTV.transpose(1, 2), batch.targets_BT, reduction="none"
    )
    assert loss.count == int(batch.mask_BT.sum()) > 0
    assert float(loss.sum.detach()) == pytest.approx(
        float(nll_BT[batch.mask_BT].detach().sum()), rel=1e-6
    )
    hits = (logits_BTV.argmax(-1) == batch.targets_BT)[batch.mask_BT]
    assert torch.equal(loss.hits_N, hits)


def test_a_batch_without_a_mask_costs_nothing() -> None:
    head = TransformedSoftmax(60, 16, 1e-5)
    made = data()
    batch = next(iter(made.train_dataloader()))
    batch.mask_BT = torch.zeros_like(batch.mask_BT)
    hidden_BTD = torch.randn(*batch.tokens_BT.shape, 16, requires_grad=True)
    output = Output(hidden_BTD, None, hidden_BTD)
    loss = MaskedLM(0.0, "plain")(output, head, batch, NoRegularizer())
    loss.mean.backward()
    assert float(loss.mean.detach()) == 0.0
    assert not hidden_BTD.grad.any()


def test_ridge_is_scikit_learns() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    states = rng.normal(3, [1, 5, 0.1, 2], (200, 4))
    wanted = states @ rng.normal(size=(4, 2)) + rng.normal(size=(200, 2))
    scaled = (states - states.mean(0)) / states.std(0, ddof=1)
    tried = [0.01, 1.0]
    path = ridge_path(torch.from_numpy(states), torch.from_numpy(wanted), tried)
    for strength, (said, weight_KD, bias_K) in zip(tried, path, strict=True):
        assert said == strength
        oracle = linear.Ridge(alpha=strength * 200).fit(scaled, wanted).predict(scaled)
        assert np.allclose(states @ weight_KD.T.numpy() + bias_K.numpy(), oracle, atol=1e-9)


def test_ridge_leaves_out_missing_labels() -> None:
    rng = np.random.default_rng(1)
    states, wanted = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    holes = wanted.copy()
    holes[:20, 1] = np.nan
    whole = next(iter(ridge_path(torch.from_numpy(states), torch.from_numpy(holes), [1e-12])))
    ones = np.column_stack([states, np.ones(60)])
    oracle = np.linalg.lstsq(ones[20:], wanted[20:, 1], rcond=None)[0]
    assert np.allclose(whole[1][1].numpy(), oracle[:3], atol=1e-6)
