"""Packed rows against the sequences alone, against a dense mask, and against a loop."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lit_seqlm.data.masking import CountedMasking, Vocabulary
from lit_seqlm.data.packed_loader import PackedMasker, pack
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.model.bert import Bert
from lit_seqlm.model.layers.bidirectional_attention import SoftmaxAttention
from lit_seqlm.model.layers.linear_attention import LinearAttention
from lit_seqlm.model.layers.packing import Packing

RESIDUES = range(5, 30)
VOCABULARY = Vocabulary(32, 1, (0, 1, 2, 3, 4, 30, 31))
LINEAR = partial(
    LinearAttention, kernel="relu_features", num_features=16, omega_policy="fixed", omega_scale=0.125, order="auto",
    guard="add", guard_eps=1e-6,
)  # fmt: skip


def bert(positions: str = "absolute", norm: str = "pre", attention: object = None) -> Bert:
    torch.manual_seed(0)
    return Bert(
        32, 64, 32, 3, 4, 64, attention or partial(SoftmaxAttention, dropout=0.0), norm, positions, 64, "mask", "gelu",
        0.0, 0.0, "output", 1e-12, "none",
    ).eval()  # fmt: skip


def sequences(seed: int = 0, count: int = 9) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    lengths = [*rng.integers(1, 40, count - 3), 1, 17, 17]
    return [torch.from_numpy(rng.integers(5, 30, size)) for size in lengths]


def packed(tokens: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(one) for one in tokens])
    return torch.cat(tokens)[None], torch.arange(len(tokens)).repeat_interleave(lengths)[None]


@pytest.mark.parametrize("positions", ["absolute", "rotary", "none"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_packed_equals_separate(positions: str, norm: str) -> None:
    for attention in (None, LINEAR):
        model, tokens = bert(positions, norm, attention), sequences()
        rows, segments = packed(tokens)
        together = model(rows, segments_BT=segments)
        alone = torch.cat([model(one[None]).hidden_BTD[0] for one in tokens])
        assert torch.allclose(together.hidden_BTD[0], alone, atol=1e-5)
        logits = model.output_embedding.log_prob(together.hidden_BTD[0])
        assert torch.allclose(logits, model.output_embedding.log_prob(alone), atol=1e-5)


@torch.no_grad()
def test_padding_of_packed_rows_is_a_sequence_of_its_own() -> None:
    model, tokens = bert(), sequences()
    rows = [torch.cat(tokens[:4]), torch.cat(tokens[4:])]
    width = max(map(len, rows))
    tokens_BT, segments_BT = torch.zeros(2, width, dtype=torch.long), torch.full((2, width), -1)
    for row, (part, whole) in enumerate(zip((tokens[:4], tokens[4:]), rows, strict=True)):
        tokens_BT[row, : len(whole)] = whole
        segments_BT[row, : len(whole)] = packed(part)[1]
    hidden_BTD = model(tokens_BT, segments_BT=segments_BT).hidden_BTD
    found = hidden_BTD[segments_BT >= 0]
    alone = torch.cat([model(one[None]).hidden_BTD[0] for one in tokens])
    assert torch.allclose(found, alone, atol=1e-5)
    tokens_BT[segments_BT < 0] = 7
    assert torch.equal(
        found, model(tokens_BT, segments_BT=segments_BT).hidden_BTD[segments_BT >= 0]
    )


@torch.no_grad()
def test_a_change_in_one_sequence_leaves_the_others_as_they_are() -> None:
    model, tokens = bert(), sequences()
    rows, segments = packed(tokens)
    before = model(rows, segments_BT=segments).hidden_BTD
    changed = torch.where(segments == 1, 5 + (rows - 4) % 25, rows)
    after = model(changed, segments_BT=segments).hidden_BTD
    same = (before == after).all(-1)
    assert torch.equal(same, segments != 1)


def test_gradients_of_packed_rows_are_the_sum_of_the_sequences() -> None:
    model, tokens = bert().double(), sequences(1)
    rows, segments = packed(tokens)
    model(rows, segments_BT=segments).hidden_BTD.square().sum().backward()
    together = [parameter.grad.clone() for parameter in model.trunk.parameters()]
    model.zero_grad()
    for one in tokens:
        model(one[None]).hidden_BTD.square().sum().backward()
    for found, parameter in zip(together, model.trunk.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_attention_by_runs_is_attention_under_the_dense_mask() -> None:
    torch.manual_seed(0)
    layer = SoftmaxAttention(24, 3, 0.0).double()
    packing = Packing((3, 3, 8, 1, 1, 5), torch.device("cpu"))
    hidden_TBD = torch.randn(21, 1, 24, dtype=torch.float64)
    queries, keys, values = layer.qkv(hidden_TBD[:, 0]).view(21, 3, 3, 8).permute(1, 2, 0, 3)
    mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=packing.mask())
    expected = layer.out(mixed.transpose(0, 1).flatten(1))
    from lit_seqlm.model.layers.half_rotary import NoRotation

    found = layer(hidden_TBD, NoRotation(), None, packing)[:, 0]
    assert torch.allclose(found, expected, atol=1e-12)
    assert [run.num for run in packing.runs] == [2, 1, 2, 1]
    assert packing.positions.tolist() == [
        0,
        1,
        2,
        0,
        1,
        2,
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        0,
        0,
        0,
        1,
        2,
        3,
        4,
    ]


def test_a_sequence_beyond_the_learned_positions_is_refused() -> None:
    with pytest.raises(UserError, match="70 tokens"):
        bert()(
            torch.zeros(1, 80, dtype=torch.long), segments_BT=torch.tensor([[0] * 70 + [1] * 10])
        )


def test_rows_hold_whole_sequences_in_their_order() -> None:
    lengths = np.array([5, 9, 3, 10, 1, 1, 12, 4])
    order = np.array([3, 1, 0, 2, 4, 6, 5, 7])
    rows = pack(order, lengths, 12)
    assert np.concatenate(rows).tolist() == order.tolist()
    assert [row.tolist() for row in rows] == [[3], [1], [0, 2, 4], [6], [5, 7]]
    assert pack(order[:0], lengths, 12) == []
    for room in (12, 13, 20, 45):
        sums = [lengths[row].sum() for row in pack(order, lengths, room)]
        assert max(sums) <= room
        firsts = [lengths[row[0]] for row in pack(order, lengths, room)]
        assert all(a + b > room for a, b in zip(sums[:-1], firsts[1:], strict=True))


def table(seed: int = 0, count: int = 40) -> TokenTable:
    rng = np.random.default_rng(seed)
    return TokenTable.of(
        np.concatenate([[2], rng.integers(5, 30, size)]) for size in rng.integers(3, 90, count)
    )


@pytest.mark.parametrize("unit", ["row", "sequence"])
def test_a_packed_batch_has_every_sequence_once_and_as_many_masks_as_said(unit: str) -> None:
    masking = CountedMasking(0.15, 0.8, 0.1, "content", unit)
    made, rows = table(), pack(np.random.default_rng(1).permutation(40), table().lengths, 128)
    batch = PackedMasker(masking, VOCABULARY, 0, 1)(made, rows, seed=3, number=5)
    found = [batch.targets_BT[0, batch.segments_BT[0] == segment].tolist() for segment in range(40)]
    assert sorted(found) == sorted(row.tolist() for row in made)
    assert [len(one) for one in found] == sorted(made.lengths.tolist())
    counted = [made.lengths[row].sum() for row in rows] if unit == "row" else made.lengths
    wanted = sum(max(1, round(0.15 * int(count))) for count in counted)
    assert int(batch.mask_BT.sum()) == wanted
    if unit == "sequence":
        for segment in range(40):
            inside = batch.segments_BT[0] == segment
            assert batch.mask_BT[0, inside].sum() == max(1, round(0.15 * int(inside.sum())))
    assert not (batch.mask_BT & (batch.targets_BT == 2)).any(), "no <cls> is a candidate"
    assert torch.equal(batch.tokens_BT[~batch.mask_BT], batch.targets_BT[~batch.mask_BT])
    again = PackedMasker(masking, VOCABULARY, 0, 1)(made, rows, seed=3, number=5)
    other = PackedMasker(masking, VOCABULARY, 0, 1)(made, rows, seed=4, number=5)
    assert torch.equal(batch.tokens_BT, again.tokens_BT)
    assert not torch.equal(batch.mask_BT, other.mask_BT)


@pytest.mark.parametrize("pool", ["content", "all"])
def test_masks_are_15_percent_and_80_10_10(pool: str) -> None:
    rng = np.random.default_rng(0)
    tokens_BT = torch.from_numpy(rng.integers(5, 30, (400, 512)))
    tokens_BT[:, 0] = 2
    masking = CountedMasking(0.15, 0.8, 0.1, pool, "row")
    read_BT, selected_BT = masking(tokens_BT, VOCABULARY, torch.Generator().manual_seed(0))
    assert selected_BT.sum(1).tolist() == [77] * 400, "round(0.15 * 512)"
    was, reads = tokens_BT[selected_BT], read_BT[selected_BT]
    masked, kept = (reads == 1).double().mean(), (reads == was).double().mean()
    # A random token is the old one in one case of 25, or of 32; of 32 one is the mask.
    same = 0.1 / (25 if pool == "content" else 32)
    assert masked == pytest.approx(0.8 + (0.1 / 32 if pool == "all" else 0), abs=0.01)
    assert kept == pytest.approx(0.1 + same, abs=0.01)
    drawn = reads[(reads != 1) & (reads != was)]
    specials = torch.isin(drawn, torch.tensor(VOCABULARY.special_ids))
    assert specials.any() == (pool == "all")
    assert set(drawn.unique().tolist()) >= set(RESIDUES)
