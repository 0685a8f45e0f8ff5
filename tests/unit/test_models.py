"""What every language model must do, whichever it is; and the published sizes of each."""

# B = sequences, T = tokens, V = vocabulary

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.trainer.states import TrainerFn, TrainerState
from torch import Tensor, nn

from lit_seqlm.callbacks.nonmonotone_stop import NonMonotoneStop
from lit_seqlm.config import build, register
from lit_seqlm.errors import UserError
from lit_seqlm.model.awd_lstm import AWDLSTM
from lit_seqlm.model.decoder import Decoder
from lit_seqlm.model.layers.attention import Context
from lit_seqlm.model.lstm import LSTMLanguageModel
from lit_seqlm.model.mos import MixtureOfSoftmaxesLSTM
from lit_seqlm.model.qrnn import QRNNLanguageModel
from lit_seqlm.regularizer.none import NoRegularizer

CONF = str(Path(__file__).parents[2] / "conf")
V = 31
LOCKED = {
    "input_dropout": 0.2,
    "hidden_dropout": 0.2,
    "output_dropout": 0.2,
    "embedding_dropout": 0.2,
}
RECURRENT = {
    **LOCKED,
    "embedding_size": 16,
    "hidden_size": 24,
    "weight_dropout": 0.3,
    "input_noise": 0.1,
}
TRANSFORMER = {
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_size": 32,
    "activation": "gelu",
    "dropout": 0.2,
    "attention_dropout": 0.2,
    "activation_dropout": 0.2,
    "input_noise": 0.1,
}


def dense(embedding: str = "tied", cutoffs: list[int] | None = None) -> dict[str, Any]:
    return {"embedding": embedding, "cutoffs": cutoffs}


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: LSTMLanguageModel(V, 16, 2, 0.2, init_range=None, **dense()),
    "awd_lstm": lambda: AWDLSTM(V, num_layers=3, **RECURRENT, **dense()),
    "awd_lstm_untied": lambda: AWDLSTM(V, num_layers=2, **RECURRENT, **dense("untied")),
    "mos": lambda: MixtureOfSoftmaxesLSTM(
        V, num_layers=2, last_size=10, num_experts=3, latent_dropout=0.2, **RECURRENT
    ),
    "qrnn": lambda: QRNNLanguageModel(V, num_layers=3, **RECURRENT, **dense()),
    "qrnn_adaptive": lambda: QRNNLanguageModel(
        V, num_layers=2, **RECURRENT, **dense(cutoffs=[6, 15])
    ),
    "decoder_rotary": lambda: Decoder(V, positions="rotary", **TRANSFORMER, **dense()),
    "decoder_sinusoidal": lambda: Decoder(
        V, positions="sinusoidal", **TRANSFORMER, **dense("untied")
    ),
    "decoder_adaptive": lambda: Decoder(V, positions="rotary", **TRANSFORMER, **dense(cutoffs=[6])),
}
STATEFUL = [name for name in MODELS if "decoder" not in name]
DECODERS = [name for name in MODELS if "decoder" in name]


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def log_prob(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    return model.output_embedding.log_prob(model(tokens_BT).hidden_BTD)


def some_tokens(batch_size: int = 3, length: int = 11) -> Tensor:
    return torch.randint(V, (batch_size, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_output_does_not_change_when_later_tokens_do(name: str) -> None:
    model, tokens_BT = make(name), some_tokens()
    changed_BT = tokens_BT.clone()
    changed_BT[:, 6:] = (changed_BT[:, 6:] + 1) % V
    before, after = log_prob(model, tokens_BT), log_prob(model, changed_BT)
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("name", MODELS)
def test_every_earlier_token_matters(name: str) -> None:
    model, tokens_BT = make(name), some_tokens(1)
    before = log_prob(model, tokens_BT)[0, -1]
    for position in range(tokens_BT.size(1)):
        changed_BT = tokens_BT.clone()
        changed_BT[0, position] = (changed_BT[0, position] + 7) % V
        assert not torch.equal(log_prob(model, changed_BT)[0, -1], before)


@pytest.mark.parametrize("name", MODELS)
def test_permuting_a_batch_permutes_the_answers(name: str) -> None:
    model, tokens_BT = make(name), some_tokens(4)
    order = torch.tensor([2, 0, 3, 1])
    permuted = log_prob(model, tokens_BT[order])
    torch.testing.assert_close(permuted, log_prob(model, tokens_BT)[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("length", [1, 4, 5])
def test_segments_with_carried_state_equal_one_pass(name: str, length: int) -> None:
    model, tokens_BT = make(name), some_tokens()
    whole = model(tokens_BT)
    state, parts = None, []
    for segment_BT in tokens_BT.split(length, dim=1):
        output = model(segment_BT, state)
        state = model.detach(output.state)
        parts.append(output.hidden_BTD)
    torch.testing.assert_close(torch.cat(parts, 1), whole.hidden_BTD, rtol=0, atol=1e-5)
    for part, expected in zip(
        torch.utils._pytree.tree_leaves(state),
        torch.utils._pytree.tree_leaves(whole.state),
        strict=True,
    ):
        assert not part.requires_grad
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STATEFUL)
def test_no_gradient_passes_a_detached_state(name: str) -> None:
    model, tokens_BT = make(name).train(), some_tokens()
    first = model(tokens_BT)
    second = model(tokens_BT, model.detach(first.state))
    first.hidden_BTD.retain_grad()
    second.hidden_BTD.sum().backward()
    assert first.hidden_BTD.grad is None


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 3, 4, 11])
def test_cached_decoder_equals_one_pass(name: str, dtype: torch.dtype, length: int) -> None:
    model, tokens_BT = make(name).to(dtype), some_tokens()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    with torch.no_grad():
        cache = model.empty_cache(batch_size=3, max_len=20)
        parts = []
        for segment_BT in tokens_BT.split(length, dim=1):
            output = model(segment_BT, cache)
            assert output.state is cache
            parts.append(output.hidden_BTD)
        whole = model(tokens_BT)
    assert whole.state is None
    torch.testing.assert_close(torch.cat(parts, 1), whole.hidden_BTD, rtol=0, atol=tolerance)


def test_decoder_pieces_run_by_themselves() -> None:
    """Called one by one they are the forward pass: a pipeline may cut between any two blocks."""
    model, tokens_BT = make("decoder_rotary"), some_tokens()
    positions_T = torch.arange(tokens_BT.size(1))
    hidden_BTD = model.embed(tokens_BT, positions_T)
    for block in model.blocks:
        rotation = model.positions.rotation(positions_T, hidden_BTD.dtype)
        hidden_BTD = block(hidden_BTD, rotation, Context())
    assert torch.equal(model.norm(hidden_BTD), model(tokens_BT).hidden_BTD)


def test_unknown_positions_are_refused() -> None:
    with pytest.raises(UserError, match="choose one of rotary, sinusoidal"):
        Decoder(V, positions="relative", **TRANSFORMER, **dense())


@pytest.mark.parametrize("name", MODELS)
def test_tied_weights_are_one_tensor(name: str) -> None:
    model = make(name)
    shared = model.output_embedding.weight is model.embedding.weight
    assert shared == (name not in ("awd_lstm_untied", "decoder_sinusoidal"))
    model.load_state_dict(model.state_dict(), strict=True)
    assert shared == (model.output_embedding.weight is model.embedding.weight)


@pytest.mark.parametrize("name", MODELS)
def test_training_drops_and_evaluation_does_not(name: str) -> None:
    model, tokens_BT = make(name).train(), some_tokens()
    assert not torch.allclose(model(tokens_BT).hidden_BTD, model(tokens_BT).hidden_BTD)
    model.eval()
    assert torch.equal(model(tokens_BT).hidden_BTD, model(tokens_BT).hidden_BTD)


@pytest.mark.parametrize("name", ["awd_lstm", "mos", "qrnn"])
def test_dropouts_of_the_frame_are_where_they_belong(name: str) -> None:
    """Without the others, output dropout zeroes hidden but not raw units, at all steps alike."""
    model, tokens_BT = make(name).train(), some_tokens()
    model.embedding.rate = model.embedding.noise_std = 0.0
    model.input_dropout.rate = 0.0
    model.stack.between.rate = 0.0
    output = model(tokens_BT)
    dropped = output.hidden_BTD == 0
    assert dropped.any()
    assert (dropped == dropped[:, :1]).all()
    assert (output.raw_BTD != 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model, tokens_BT = make(name).train(), some_tokens(8, 40)
    total, _ = model.output_embedding.nll(
        model(tokens_BT[:, :-1]).hidden_BTD, tokens_BT[:, 1:], None, NoRegularizer()
    )
    total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", ["lstm", "awd_lstm", "mos", "qrnn_adaptive", "decoder_rotary"])
def test_overfits_eight_sequences(name: str) -> None:
    """In eval mode throughout: dropout is there to prevent this."""
    model, tokens_BT = make(name), some_tokens(8, 9)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        total, clean_nll_N = model.output_embedding.nll(
            model(tokens_BT[:, :-1]).hidden_BTD, tokens_BT[:, 1:], None, NoRegularizer()
        )
        optimizer.zero_grad()
        (total / 64).backward()
        optimizer.step()
    # The first word of a sequence does not always tell the second.
    assert clean_nll_N.view(8, 8)[:, 1:].mean().item() < 0.3


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("experiment", "vocab_size", "count"),
    [
        ("ptb_lstm_small", 10_000, 4_653_200),
        ("ptb_lstm_medium", 10_000, 19_780_400),
        ("ptb_lstm_large", 10_000, 66_034_000),
        ("ptb_awd_lstm", 10_000, 24_221_600),
        ("wikitext2_awd_lstm", 33_278, 33_556_078),
        ("ptb_mos", 10_000, 21_500_620),
        ("wikitext2_mos", 33_278, 34_909_528),
        ("wikitext103_qrnn", 267_735, 153_885_435 + 1_203),
    ],
)
def test_paper_scale_experiments_have_the_published_size(
    experiment: str, vocab_size: int, count: int
) -> None:
    register()
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("config", overrides=[f"experiment={experiment}"])
    assert cfg.scale.value == "paper"
    with torch.device("meta"):
        assert parameter_count(build(cfg.model, vocab_size=vocab_size)) == count


def test_decoder_size_is_that_of_its_formula() -> None:
    with torch.device("meta"):
        model = Decoder(V, positions="rotary", **TRANSFORMER, **dense())
    size, inner = 16, 32
    attention = 4 * size * size + 4 * size
    feed_forward = 2 * size * inner + size + inner
    assert (
        parameter_count(model)
        == 2 * (attention + feed_forward + 4 * size) + 2 * size + V * size + V
    )


# -- the rule that ends a fine-tuning round


class FakeTrainer:
    sanity_checking = False
    should_stop = False
    current_epoch = 0

    def __init__(self) -> None:
        self.callback_metrics = {"val/nll": 0.0}
        self.state = TrainerState(fn=TrainerFn.FITTING)


def test_nonmonotone_stop_does_not_count_what_is_validated_before_training() -> None:
    trainer, stop = FakeTrainer(), NonMonotoneStop("val/nll", patience=2)
    trainer.state = TrainerState(fn=TrainerFn.VALIDATING)
    stop.on_validation_end(trainer, None)
    assert stop.history == []


def test_nonmonotone_stop_fires_where_the_rule_says_and_resumes() -> None:
    trainer, stop = FakeTrainer(), NonMonotoneStop("val/nll", patience=2)
    for value in (5.0, 4.0, 3.0, 3.5):  # 3.5 against min(5, 4): still better
        trainer.callback_metrics["val/nll"] = value
        stop.on_validation_end(trainer, None)
        assert not trainer.should_stop
    resumed = NonMonotoneStop("val/nll", patience=2)
    resumed.load_state_dict(stop.state_dict())
    trainer.callback_metrics["val/nll"] = 4.1  # against min(5, 4)
    resumed.on_validation_end(trainer, None)
    assert trainer.should_stop
    assert stop.history == [5.0, 4.0, 3.0, 3.5]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["awd_lstm", "qrnn", "decoder_rotary"])
def test_gpu_gives_the_cpus_numbers(name: str) -> None:
    """cuDNN, the chunked recurrence and SDPA's kernels."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; run with -m gpu on a machine that has one")
    model, tokens_BT = make(name), some_tokens()
    expected = log_prob(model, tokens_BT)
    result = log_prob(model.cuda(), tokens_BT.cuda()).cpu()
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
