"""Sizes of the published models, their initialisation, and torch's own layers as an oracle."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lit_seqlm.config import build, register
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.masking import Masking, Vocabulary
from lit_seqlm.errors import UserError
from lit_seqlm.model.bert import Bert
from lit_seqlm.model.layers.bidirectional_attention import SoftmaxAttention
from lit_seqlm.objective.loss import Loss
from lit_seqlm.objective.masked_lm import MaskedLM
from lit_seqlm.regularizer.adversarial import AdversarialRegularizer
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.tokenizer.amino_acid import STANDARD, AminoAcidTokenizer

CONF = Path(__file__).parents[2] / "conf"
# shared facts of the papers and their code: preset, parameters with a padded vocabulary.
SIZES = {
    "proteinlm_200m": 204_952_704,
    "proteinlm_3b": 2_844_818_048,
    "tape_base": 87_417_728,
    "mlm_small": 4_952_896,
    "mlm_tiny": 883_904,
    "mlm_nano": 141_312,
}


def bert(**changes: object) -> Bert:
    options = {
        "vocab_size": 32, "vocab_multiple": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4,
        "feed_forward_size": 48, "attention": partial(SoftmaxAttention, dropout=0.0), "norm": "pre",
        "positions": "absolute", "max_len": 40, "pad_handling": "mask", "activation": "gelu", "dropout": 0.0,
        "embedding_dropout": 0.0, "feed_forward_dropout": "output", "layer_norm_eps": 1e-12, "checkpointing": "none",
    }  # fmt: skip
    torch.manual_seed(0)
    return Bert(**options | changes)


@pytest.mark.parametrize("preset", SIZES)
def test_presets_have_the_parameters_that_they_should(preset: str) -> None:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        node = compose("config", overrides=[f"model={preset}", "paths.run_dir=x"]).model
    with torch.device("meta"):
        model = build(node, vocab_size=32)
    layers, size, inner = node.num_layers, node.hidden_size, node.feed_forward_size
    rows = len(model.output_embedding.weight)
    formula = layers * (4 * size**2 + 2 * size * inner + 9 * size + inner)
    formula += rows * size + node.max_len * size + 2 * size + (size**2 + 3 * size + rows)
    assert sum(parameter.numel() for parameter in model.parameters()) == SIZES[preset] == formula


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match=r"1028 is not a multiple of model\.num_heads=8"):
        bert(hidden_size=1028, num_heads=8)
    with pytest.raises(UserError, match=r"model\.norm=middle"):
        bert(norm="middle")


def test_matrices_begin_as_megatrons() -> None:
    model = bert(hidden_size=256, num_layers=8, feed_forward_size=512)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            ends_a_branch = "blocks" in name and name.endswith("out.weight")
            wanted = 0.02 / math.sqrt(16) if ends_a_branch else 0.02
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def test_output_embedding_is_the_input_embedding_and_has_a_bias() -> None:
    model = bert()
    assert model.output_embedding.weight is model.trunk.embedding.weight
    assert model.output_embedding.bias.requires_grad
    assert len(model.output_embedding.bias) == 64, "rounded up to the multiple"


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_blocks_are_torchs_own_layers(norm: str) -> None:
    model = bert(norm=norm).eval()
    tokens_BT = torch.randint(5, 30, (3, 11))
    trunk = model.trunk
    hidden = trunk.embedding(tokens_BT) + trunk.positions.weight[:11]
    hidden = trunk.embedding_norm(hidden)
    for block in trunk.blocks:
        layer = nn.TransformerEncoderLayer(
            32, 4, 48, 0.0, "gelu", 1e-12, batch_first=True, norm_first=norm == "pre"
        ).eval()
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        for theirs, ours in (
            (layer.self_attn.out_proj, block.attention.out),
            (layer.linear1, block.feed_forward.widen),
            (layer.linear2, block.feed_forward.out),
            (layer.norm1, block.attention_norm),
            (layer.norm2, block.feed_forward_norm),
        ):
            theirs.load_state_dict(ours.state_dict())
        hidden = layer(hidden)
    assert torch.allclose(model(tokens_BT).hidden_BTD, trunk.norm(hidden), atol=1e-5)


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for checkpointing in ("none", "blocks"):
        model = bert(checkpointing=checkpointing)
        segments = torch.tensor([[0] * 5 + [1] * 7])
        model(torch.arange(5, 17)[None], segments_BT=segments).hidden_BTD.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.trunk.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other)


def test_the_adversary_raises_the_loss_of_masked_residues() -> None:
    model = bert().eval()
    tokens_BT, mask_BT = torch.randint(5, 30, (2, 20)), torch.rand(2, 20) < 0.3
    hidden_BTD = model(tokens_BT).hidden_BTD
    from lit_seqlm.regularizer.none import NoRegularizer

    plain, _ = model.output_embedding.nll(hidden_BTD, tokens_BT, mask_BT, NoRegularizer())
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        overrides = ["regularizer=adversarial", "regularizer.radius=0.1", "paths.run_dir=x"]
        adversary = build(compose("config", overrides=overrides).regularizer)
    assert isinstance(adversary, AdversarialRegularizer)
    worse, clean = model.output_embedding.nll(hidden_BTD, tokens_BT, mask_BT, adversary.train())
    assert worse > plain
    assert clean.sum().item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.slow
def test_eight_proteins_are_learnt_by_heart() -> None:
    """What a mask hides is told by the rest, which is only so of a sequence that is known; masks are new ones."""
    tokenizer, rng = AminoAcidTokenizer("cls", "keep", False), np.random.default_rng(0)
    proteins = ["".join(rng.choice(list(STANDARD), size=30 - place)) for place in range(8)]
    copies = np.tile(np.arange(8), 8)  # each masked in eight ways
    tokens_BT, valid_BT = tokenizer.encode(proteins).pad(copies, tokenizer.pad_id)
    vocabulary = Vocabulary(len(tokenizer), tokenizer.mask_id, tuple(tokenizer.special_ids))
    masking = Masking(rate=0.15, masked=0.8, replaced=0.1, random_pool="content")
    model = bert(vocab_size=len(tokenizer), hidden_size=64, feed_forward_size=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def loss(generator: torch.Generator) -> Loss:
        read_BT, mask_BT = masking(tokens_BT, vocabulary, generator)
        batch = Batch(read_BT, tokens_BT, mask_BT=mask_BT, valid_BT=valid_BT)
        return MaskedLM(0.0, "plain")(
            model(read_BT, valid_BT), model.output_embedding, batch, NoRegularizer()
        )

    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        found = loss(generator)
        optimizer.zero_grad()
        (found.sum / found.count).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        hits_N = loss(torch.Generator().manual_seed(2)).hits_N
    assert hits_N is not None
    assert hits_N.double().mean() > 0.95
