"""The encoder: counts, names, independence of rows, peers in torch, its output embedding."""

# B = sequences, T = tokens, D = hidden size, N = positions that count, V = vocabulary

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from lit_seqlm.config import build
from lit_seqlm.errors import UserError
from lit_seqlm.model.encoder import Encoder
from lit_seqlm.model.layers.bidirectional_attention import SoftmaxAttention
from lit_seqlm.model.layers.linear_attention import LinearAttention
from lit_seqlm.model.layers.transformed_softmax import TransformedSoftmax
from lit_seqlm.regularizer.none import NoRegularizer

CONF = Path(__file__).parents[2] / "conf" / "model"
LINEAR = partial(LinearAttention, kernel="relu_features", num_features=16, omega_policy="fixed",
                 omega_scale=0.125, order="auto", guard="add", guard_eps=1e-6)  # fmt: skip
SOFTMAX = partial(SoftmaxAttention, dropout=0.0)
ATTENTION = {"linear": LINEAR, "softmax": SOFTMAX}
WORDS = 30


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def encoder(kind: str = "linear", **changes: Any) -> Encoder:
    options: dict[str, Any] = {
        "hidden_size": 32, "num_layers": 2, "num_heads": 2, "feed_forward_size": 48,
        "attention": ATTENTION[kind], "positions": "rotary", "max_len": 20, "pad_handling": "mask",
        "activation": "gelu", "dropout": 0.1, "embedding_dropout": 0.1, "feed_forward_dropout": "both",
        "layer_norm_eps": 1e-5, "init": "torch", "checkpointing": "none",
    }  # fmt: skip
    return Encoder(WORDS, **(options | changes))


def preset(name: str) -> Any:
    """A model option with its defaults, merged as Hydra does."""
    node = OmegaConf.load(CONF / f"{name}.yaml")
    parts = [OmegaConf.load(CONF / f"{part}.yaml") for part in node.pop("defaults", [])
             if part != "_self_"]  # fmt: skip
    return OmegaConf.merge(*parts, node)


def batch(lengths: list[int], width: int) -> tuple[Tensor, Tensor]:
    valid_BT = torch.arange(width) < torch.tensor(lengths)[:, None]
    return torch.where(valid_BT, torch.randint(3, WORDS, valid_BT.shape), 2), valid_BT


# -- sizes and names


@pytest.mark.parametrize("name", ["linear_encoder", "encoder"])
def test_molformer_xl_has_its_parameters(name: str) -> None:
    model = build(preset(name), vocab_size=2362)
    assert sum(p.numel() for p in model.trunk.parameters()) == 44_375_040
    assert sum(p.numel() for p in model.output_embedding.parameters()) == 2_406_144
    assert sum(p.numel() for p in model.parameters()) == 46_781_184
    omegas = [value for key, value in model.state_dict().items() if key.endswith("omega")]
    assert sum(omega.numel() for omega in omegas) == (24_576 if name == "linear_encoder" else 0)


def test_state_has_these_names() -> None:
    block = ["attention.qkv.weight", "attention.qkv.bias", "attention.out.weight", "attention.out.bias",
             "attention.features.omega", "attention_norm.weight", "attention_norm.bias",
             "feed_forward.widen.weight", "feed_forward.widen.bias", "feed_forward.out.weight",
             "feed_forward.out.bias", "feed_forward_norm.weight", "feed_forward_norm.bias"]  # fmt: skip
    head = ["transform.weight", "transform.bias", "norm.weight", "norm.bias", "weight"]
    assert set(encoder().state_dict()) == {
        "trunk.embedding.weight", "trunk.norm.weight", "trunk.norm.bias",
        *[f"trunk.blocks.{i}.{name}" for i in (0, 1) for name in block],
        *[f"output_embedding.{name}" for name in head],
    }  # fmt: skip
    assert "trunk.positions.weight" in encoder(positions="absolute").state_dict()


def test_presets_state_their_sizes() -> None:
    sizes = {
        "linear_encoder": (12, 768, 12, 768), "linear_encoder_base": (6, 768, 12, 768),
        "linear_encoder_cpu": (6, 192, 6, 384), "linear_encoder_tiny": (4, 128, 4, 256),
        "linear_encoder_smoke": (2, 32, 2, 64), "encoder": (12, 768, 12, 768),
    }  # fmt: skip
    for name, size in sizes.items():
        node = preset(name)
        found = node.num_layers, node.hidden_size, node.num_heads, node.feed_forward_size
        assert found == size, name


# -- against torch's own encoder


@pytest.mark.parametrize("padded", [False, True])
def test_softmax_blocks_are_torchs_post_norm_encoder(padded: bool) -> None:
    model = encoder("softmax", positions="none").eval()
    layer = nn.TransformerEncoderLayer(32, 2, 48, 0.0, "gelu", batch_first=True)
    peer = nn.TransformerEncoder(layer, 2, nn.LayerNorm(32), enable_nested_tensor=False)
    names = [(r"blocks\.", "layers."), (r"attention\.qkv\.", "self_attn.in_proj_"),
             (r"attention\.out", "self_attn.out_proj"),
             ("attention_norm", "norm1"), ("feed_forward_norm", "norm2"),
             (r"feed_forward\.widen", "linear1"), (r"feed_forward\.out", "linear2")]  # fmt: skip
    state = {}
    for key, value in model.trunk.state_dict().items():
        for ours, theirs in names:
            key = re.sub(ours, theirs, key)
        state[key] = value
    embedding_VD = state.pop("embedding.weight")
    peer.load_state_dict(state)
    tokens_BT, valid_BT = batch([9, 4, 7], 9)
    expected_BTD = peer(embedding_VD[tokens_BT], src_key_padding_mask=~valid_BT if padded else None)
    found_BTD = model.trunk(tokens_BT, valid_BT if padded else None)
    torch.testing.assert_close(found_BTD[valid_BT], expected_BTD[valid_BT], atol=1e-5, rtol=1e-5)


# -- rows and positions


@pytest.mark.parametrize("positions", ["rotary", "absolute", "none"])
@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_a_row_does_not_depend_on_its_neighbours(attention: str, positions: str) -> None:
    model = encoder(attention, positions=positions).eval()
    tokens_BT, valid_BT = batch([5, 12, 1, 9], 12)
    with torch.no_grad():
        together_BTD = model(tokens_BT, valid_BT=valid_BT).hidden_BTD
        for row, length in enumerate([5, 12, 1, 9]):
            alone_1TD = model(tokens_BT[row : row + 1, :length]).hidden_BTD
            torch.testing.assert_close(
                together_BTD[row, :length], alone_1TD[0], atol=1e-5, rtol=1e-5
            )
        permuted_BTD = model(tokens_BT.flip(0), valid_BT=valid_BT.flip(0)).hidden_BTD
    torch.testing.assert_close(permuted_BTD.flip(0), together_BTD, atol=1e-5, rtol=1e-5)


def test_with_attend_a_row_does_depend_on_its_padding() -> None:
    model = encoder(pad_handling="attend").eval()
    tokens_BT, valid_BT = batch([5, 12], 12)
    together_BTD, alone_BTD = model.trunk(tokens_BT, valid_BT), model.trunk(tokens_BT[:1, :5])
    assert (together_BTD[0, :5] - alone_BTD[0]).abs().max() > 1e-2
    torch.testing.assert_close(model.trunk(tokens_BT), together_BTD)


@pytest.mark.parametrize(
    ("positions", "ordered"), [("rotary", True), ("absolute", True), ("none", False)]
)
def test_positions_matter_where_there_are_any(positions: str, ordered: bool) -> None:
    trunk = encoder(positions=positions).eval().trunk
    tokens_BT = torch.randint(3, WORDS, (2, 8))
    change = (trunk(tokens_BT.flip(1)).flip(1) - trunk(tokens_BT)).abs().max().item()
    assert (change > 1e-2) == ordered
    assert ordered or change < 1e-5


def test_rotary_tables_grow_and_learned_ones_say_how_long_they_are() -> None:
    tokens_BT = torch.randint(3, WORDS, (1, 33))
    assert encoder(max_len=20).trunk(tokens_BT).shape == (1, 33, 32)
    with pytest.raises(UserError, match=r"33 tokens.*model\.max_len=33"):
        encoder(positions="absolute", max_len=20).trunk(tokens_BT)


# -- attention maps


@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_maps_sum_to_one_over_keys_that_count(attention: str) -> None:
    model = encoder(attention).eval()
    tokens_BT, valid_BT = batch([5, 12], 12)
    maps_LBHTT = model.trunk.attention_maps(tokens_BT, valid_BT)
    assert maps_LBHTT.shape == (2, 2, 2, 12, 12)
    assert (maps_LBHTT >= 0).all()
    torch.testing.assert_close(maps_LBHTT.sum(-1), torch.ones(2, 2, 2, 12), atol=1e-3, rtol=0)
    assert not maps_LBHTT[:, 0, ..., 5:].any()


@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_maps_explain_the_output(attention: str) -> None:
    """The hidden states of a block are those that its maps give to the values."""
    trunk = encoder(attention).eval().trunk
    tokens_BT, valid_BT = batch([5, 12], 12)
    maps_LBHTT = trunk.attention_maps(tokens_BT, valid_BT)
    seen: list[Tensor] = []
    block = trunk.blocks[1]
    assert isinstance(block.attention, nn.Module)
    block.attention.register_forward_hook(lambda _, given, made: seen.extend([given[0], made]))
    trunk(tokens_BT, valid_BT)
    qkv = block.attention.qkv(seen[0]).unflatten(-1, (3, 2, 16))  # type: ignore[operator]
    mixed = torch.einsum("bhts,sbhf->tbhf", maps_LBHTT[1], qkv[:, :, 2]).flatten(2)
    torch.testing.assert_close(block.attention.out(mixed), seen[1], atol=1e-5, rtol=1e-5)  # type: ignore[operator]


# -- training


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for checkpointing in ("none", "blocks"):
        torch.manual_seed(3)
        redrawn = partial(LINEAR, omega_policy="redraw_train")
        model = encoder(checkpointing=checkpointing, attention=redrawn)
        tokens_BT, valid_BT = batch([5, 12], 12)
        torch.manual_seed(4)
        model.trunk(tokens_BT, valid_BT).square().sum().backward()
        gradients.append([p.grad for p in model.trunk.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_where_dropout_is() -> None:
    rates = {
        word: [
            (name.rpartition("blocks.0.")[2], part.p)
            for name, part in encoder(
                feed_forward_dropout=word, embedding_dropout=0.2
            ).named_modules()
            if isinstance(part, nn.Dropout) and "blocks.1" not in name
        ]
        for word in ("both", "output")
    }
    assert dict(rates["both"]) == {
        "trunk.dropout": 0.2,
        "dropout": 0.1,
        "feed_forward.dropout": 0.1,
    }
    assert dict(rates["output"]) == {
        "trunk.dropout": 0.2,
        "dropout": 0.1,
        "feed_forward.dropout": 0.0,
    }


def test_initial_weights() -> None:
    model = encoder(init="normal", hidden_size=64)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
    assert encoder(init="torch").trunk.embedding.weight.std().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("option", ["positions", "pad_handling", "init", "checkpointing",
                                    "feed_forward_dropout"])  # fmt: skip
def test_a_wrong_word_is_refused_with_the_right_ones(option: str) -> None:
    with pytest.raises(UserError, match=rf"model\.{option}=perhaps: .*Accepted: "):
        encoder(**{option: "perhaps"})


# -- the output embedding


def test_transformed_softmax_is_the_cross_entropy_of_its_logits() -> None:
    softmax = TransformedSoftmax(WORDS, 16, 1e-5)
    hidden_BTD = torch.randn(3, 5, 16, requires_grad=True)
    targets_BT, mask_BT = torch.randint(WORDS, (3, 5)), torch.rand(3, 5) < 0.5
    rows: list[int] = []
    softmax.transform.register_forward_hook(lambda _, given, made: rows.append(len(made)))
    total, clean_nll_N = softmax.nll(hidden_BTD, targets_BT, mask_BT, NoRegularizer())
    assert rows == [int(mask_BT.sum())]  # what is not scored is not computed
    hidden_N = F.gelu(F.linear(hidden_BTD, softmax.transform.weight, softmax.transform.bias))
    logits = (
        F.layer_norm(hidden_N, (16,), softmax.norm.weight, softmax.norm.bias) @ softmax.weight.T
    )
    expected = F.cross_entropy(logits[mask_BT], targets_BT[mask_BT], reduction="sum")
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert clean_nll_N.sum().item() == pytest.approx(expected.item(), rel=1e-6)
    inputs = [hidden_BTD, *softmax.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(total, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    whole, _ = softmax.nll(hidden_BTD, targets_BT, None, NoRegularizer())
    assert whole.item() == pytest.approx(
        F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="sum").item(),
        rel=1e-6,
    )
    log_prob_NV = softmax.log_prob(hidden_BTD[mask_BT])
    torch.testing.assert_close(log_prob_NV, logits[mask_BT].log_softmax(-1))


def test_the_head_is_not_tied_and_has_no_output_bias() -> None:
    model = encoder()
    assert model.output_embedding.weight is not model.trunk.embedding.weight
    assert not model.output_embedding.bias.any()
    assert "output_embedding.bias" not in model.state_dict()
    assert model.detach(None) is None
