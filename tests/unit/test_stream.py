"""Columns, segments and windows: what is scored, how often, with which context."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_seqlm.data.stream import (
    FixedSegments,
    StreamLoader,
    VariableSegments,
    WindowLoader,
    batchify,
    rotate_columns,
)
from lit_seqlm.errors import UserError
from lit_seqlm.model.lstm import LSTMLanguageModel


def stream_of(length: int, vocab_size: int = 50) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(vocab_size, size=length).astype(np.int32))


def fixed(columns: Tensor, seq_len: int) -> StreamLoader:
    lengths = FixedSegments(seq_len).lengths(columns.size(1) - 1, np.random.default_rng(0))
    return StreamLoader(columns, lengths)


def variable(seq_len: int = 70, max_extra: int | None = 10) -> VariableSegments:
    return VariableSegments(seq_len, short_probability=0.05, std=5, min_len=5, max_extra=max_extra)


def test_batchify_drops_the_remainder() -> None:
    columns = batchify(torch.arange(23), 4)
    assert columns.tolist() == [[5 * row + i for i in range(5)] for row in range(4)]


def test_targets_are_the_tokens_shifted_by_one() -> None:
    columns = batchify(stream_of(403), 4)
    batches = list(fixed(columns, 7))
    assert torch.equal(torch.cat([b.tokens_BT for b in batches], 1), columns[:, :-1].long())
    assert torch.equal(torch.cat([b.targets_BT for b in batches], 1), columns[:, 1:].long())
    assert [b.continues for b in batches] == [False] + [True] * (len(batches) - 1)
    assert all(b.tokens_BT.dtype == torch.int64 for b in batches)


@pytest.mark.parametrize("max_extra", [None, 10, 0])
@pytest.mark.parametrize("total", [1, 4, 69, 70, 71, 5000])
def test_variable_segments_cover_the_stream_and_scale_the_rate(
    total: int, max_extra: int | None
) -> None:
    for seed in range(20):
        drawn = variable(70, max_extra).lengths(total, np.random.default_rng(seed))
        lengths = [length for length, _ in drawn]
        assert sum(lengths) == total
        assert min(lengths) >= 1
        for length, scale in drawn[:-1]:
            assert length >= 5
            assert scale == length / 70
            assert max_extra is None or length <= 70 + max_extra
        last_length, last_scale = drawn[-1]
        assert last_scale * 70 >= last_length  # the drawn length, not what was left of the stream


def test_variable_segments_have_the_published_distribution() -> None:
    drawn = variable(70, None).lengths(2_000_000, np.random.default_rng(0))
    lengths = np.array([length for length, _ in drawn])
    assert np.mean(lengths < 50) == pytest.approx(0.05, abs=0.005)
    # int() cuts off half a token on average
    assert np.mean(lengths[lengths >= 50]) == pytest.approx(69.5, abs=0.2)


def test_variable_segments_differ_by_seed_and_repeat_with_it() -> None:
    first, again, other = (variable().lengths(5000, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_partial_shuffle_rotates_each_column() -> None:
    columns = batchify(torch.arange(300), 3)
    rotated = rotate_columns(columns, torch.Generator().manual_seed(0))
    offsets = []
    for before, after in zip(columns.tolist(), rotated.tolist(), strict=True):
        offset = before.index(after[0])
        assert after == before[offset:] + before[:offset]
        offsets.append(offset)
    assert len(set(offsets)) == 3
    assert torch.equal(rotated, rotate_columns(columns, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("place", [0, 1, 5, 11])
def test_a_resumed_loader_gives_the_uninterrupted_rest(place: int) -> None:
    columns = batchify(stream_of(1000), 4)
    lengths = variable(20).lengths(columns.size(1) - 1, np.random.default_rng(3))
    whole = list(StreamLoader(columns, lengths))
    interrupted = StreamLoader(columns, lengths)
    for _, _batch in zip(range(place), interrupted, strict=False):
        pass
    resumed = StreamLoader(columns, lengths)
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert len(rest) == len(whole) - place
    for ours, theirs in zip(rest, whole[place:], strict=True):
        assert torch.equal(ours.tokens_BT, theirs.tokens_BT)
        assert torch.equal(ours.targets_BT, theirs.targets_BT)
        assert (ours.continues, ours.lr_scale) == (theirs.continues, theirs.lr_scale)
    assert len(list(resumed)) == len(whole)  # the place is used once


def test_a_loader_cut_short_begins_anew_and_a_finished_one_is_at_the_start() -> None:
    loader = fixed(batchify(stream_of(200), 2), 10)
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert loader.state_dict() == {"position": 2}
    assert len(list(loader)) == len(loader)
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)  # exhausted by count, as Lightning does, without asking once more
    assert loader.state_dict() == {"position": 0}


@pytest.mark.parametrize("length", [2, 3, 9, 10, 11, 37, 100])
@pytest.mark.parametrize(("context", "stride"), [(1, 1), (4, 1), (4, 4), (10, 3), (64, 7)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_windows_score_every_token_once_with_the_promised_context(
    length: int, context: int, stride: int, batch_size: int
) -> None:
    loader = WindowLoader(torch.arange(length, dtype=torch.int32), context, stride, batch_size)
    batches = list(loader)
    assert len(batches) == len(loader)
    scored = []
    for batch in batches:
        assert batch.mask_BT is not None
        assert batch.tokens_BT.shape == batch.mask_BT.shape
        assert batch.tokens_BT.size(1) == context
        for tokens, targets, mask in zip(
            batch.tokens_BT, batch.targets_BT, batch.mask_BT, strict=True
        ):
            for place in mask.nonzero().flatten().tolist():
                target = int(targets[place])
                seen = tokens[: place + 1].tolist()
                assert seen == list(range(target - len(seen), target))  # its own past, unbroken
                assert len(seen) >= min(context - stride + 1, target)
                assert len(seen) <= context
                scored.append(target)
    assert scored == list(range(1, length))


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_would_miss_tokens_is_refused(stride: int) -> None:
    with pytest.raises(UserError, match=r"between 1 and data\.eval_seq_len"):
        WindowLoader(stream_of(20), context=8, stride=stride, batch_size=1)


def test_lengths_below_one_are_refused() -> None:
    with pytest.raises(UserError, match=r"segments\.seq_len=0"):
        FixedSegments(0)
    with pytest.raises(UserError, match="at least 1"):
        VariableSegments(5, short_probability=0.05, std=5, min_len=1, max_extra=-5)


def test_exact_scoring_does_not_depend_on_the_segment_length() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        dropout=0.5,
        embedding="tied",
        init_range=0.5,
        cutoffs=None,
    ).eval()
    stream = stream_of(2501)
    perplexities = []
    for seq_len in (1, 35, 5000):
        nll, count, state = torch.zeros((), dtype=torch.float64), 0, None
        for batch in fixed(batchify(stream, 1), seq_len):
            with torch.no_grad():
                output = model(batch.tokens_BT, state if batch.continues else None)
                softmax = model.output_embedding
                logits_BTV = output.hidden_BTD @ softmax.weight.T + softmax.bias
            log_p_BTV = logits_BTV.double().log_softmax(-1)
            nll -= log_p_BTV.gather(-1, batch.targets_BT[..., None]).sum()
            count += batch.targets_BT.numel()
            state = output.state
        assert count == len(stream) - 1
        perplexities.append(float((nll / count).exp()))
    assert perplexities[1:] == pytest.approx(perplexities[:1] * 2, rel=1e-5)
