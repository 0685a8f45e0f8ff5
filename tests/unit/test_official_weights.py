"""Weights of MoLFormer in other people's layouts: names, numbers, refusals. All files are generated here."""

# B = sequences, T = tokens, V = vocabulary, D = hidden size, H = heads, F = size of a head, R = features

import argparse
import importlib.util
import json
import math
import os
import pickle
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import lit_seqlm
from lit_seqlm.checkpoint import find_checkpoint, load_weights, read_checkpoint
from lit_seqlm.config import build
from lit_seqlm.errors import UserError
from lit_seqlm.hf.convert import import_weights
from lit_seqlm.hf.export import export_run
from lit_seqlm.hf.keys import family_of, from_ours, plain_names, to_ours
from lit_seqlm.hf.sizes import sizes_of
from lit_seqlm.tokenizer.smiles_vocabulary import OFFICIAL_HEAD

ROOT = Path(__file__).parents[2]
TOKENS = ["<bos>", "<eos>", "<pad>", "<mask>", "C", "c", "(", ")", "1", "O", "N", "<unk>"]
V, D, LAYERS, H, W, R = len(TOKENS), 16, 2, 2, 24, 8
F = D // H


def official(vocab: int = V, size: int = D, layers: int = LAYERS, heads: int = H, width: int = W,
             features: int = R) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Names and shapes of the official state, in its order: written out by hand, not from our table."""
    shapes: dict[str, tuple[int, ...]] = {"tok_emb.weight": (vocab, size)}
    for i in range(layers):
        block = f"blocks.layers.{i}."
        inner = block + "attention."
        shapes[inner + "inner_attention.feature_map.omega"] = (size // heads, features)
        for one in ("query", "key", "value", "out"):
            shapes[f"{inner}{one}_projection.weight"] = (size, size)
            shapes[f"{inner}{one}_projection.bias"] = (size,)
        shapes[inner + "rotaryemb.inv_freq"] = (size // heads // 2,)
        for name, shape in (("linear1", (width, size)), ("linear2", (size, width))):
            shapes[f"{block}{name}.weight"], shapes[f"{block}{name}.bias"] = shape, shape[:1]
        for name in ("norm1", "norm2"):
            shapes[f"{block}{name}.weight"] = shapes[f"{block}{name}.bias"] = (size,)
    for name in ("blocks.norm", "lang_model.ln_f"):
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)
    shapes |= {"lang_model.embed.weight": (size, size), "lang_model.embed.bias": (size,)}
    return shapes | {"lang_model.head.weight": (vocab, size)}


def weights(seed: int = 0) -> dict[str, Tensor]:
    """An official state of small numbers, so that an epsilon under a root or in a sum is seen."""
    drawn = torch.Generator().manual_seed(seed)
    state = {name: 0.3 * torch.randn(shape, generator=drawn) for name, shape in official().items()}
    for name in state:
        if name.endswith("inv_freq"):
            state[name] = torch.tensor([10000 ** (-2 * j / F) for j in range(F // 2)])
    return state


PROPERTY = {"net.fc1": (D, D), "net.fc2": (D, D), "net.final": (3, D)}


def with_property_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, shape in PROPERTY.items():
        state |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[:1])}
    return state


def to_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return from_ours(to_ours(state, "official", "test"), "hf", F)


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    path = tmp_path / "bert_vocab.txt"
    path.write_text("".join(f"{token}\n" for token in TOKENS))
    return str(path)


def lightning_file(path: Path, state: dict[str, Tensor]) -> Path:
    """As Lightning 1.1 wrote them: options, optimizer, generators, and a callback's class as a key."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    packages = ("pytorch_lightning", "pytorch_lightning.callbacks")
    stand_ins = {name: types.ModuleType(name) for name in packages} | {module.__name__: module}
    content = {
        "epoch": 3,
        "state_dict": state,
        "hyper_parameters": argparse.Namespace(n_head=H, num_feats=R, lr_start=np.float64(3e-5)),
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 2.4e-4}]}],
        "callbacks": {callback: {"best_model_score": torch.tensor(1.0)}},
        "rng": {
            "torch_state": torch.get_rng_state(),
            "numpy_state": np.random.get_state(),
            "python_state": random.getstate(),
        },
    }
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        torch.save(content, path)
    finally:
        for name, old in before.items():
            sys.modules.pop(name) if old is None else sys.modules.update({name: old})
    return path


def hugging_face_folder(path: Path, state: dict[str, Tensor], **settings: Any) -> Path:
    path.mkdir()
    save_file(to_hugging_face(state), path / "model.safetensors")
    said = {
        "vocab_size": V, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": H,
        "intermediate_size": W, "hidden_act": "gelu", "num_random_features": R,
        "feature_map_kernel": "relu", "layer_norm_eps": 1e-12, "linear_attention_eps": 1e-6,
        "hidden_dropout_prob": 0.1, "embedding_dropout_prob": 0.2, "max_position_embeddings": 202,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(said | settings))
    numbered = {token: number for number, token in enumerate(TOKENS)}
    (path / "vocab.json").write_text(json.dumps(numbered))
    return path


def test_the_published_model_has_224_tensors_and_46_781_184_parameters() -> None:
    shapes = official(vocab=2362, size=768, layers=12, heads=12, width=768, features=32)
    theirs = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert len(theirs) == 224
    ours = to_ours(theirs, "official", "test")
    assert ours["trunk.blocks.11.attention.qkv.weight"].shape == (2304, 768)
    assert ours["trunk.blocks.0.attention.features.omega"].shape == (64, 32)
    sizes = sizes_of(ours, {}, "test")
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == sizes.shapes()
    counted = sum(t.numel() for name, t in ours.items() if not name.endswith("omega"))
    assert sizes.num_parameters() == counted == 46_781_184
    again = from_ours(ours, "official", 64)
    assert {name: tuple(tensor.shape) for name, tensor in again.items()} == shapes
    published = from_ours(ours, "hf", 64)
    assert len(published) == 212, "no rotary frequencies"
    assert sum(tensor.numel() for tensor in published.values()) == 46_781_184 + 24_576
    for name in (
        "molformer.embeddings.word_embeddings.weight",
        "molformer.encoder.layer.11.attention.self.query.weight",
        "molformer.encoder.layer.0.attention.self.feature_map.weight",
        "molformer.encoder.layer.0.attention.output.dense.bias",
        "molformer.encoder.layer.0.attention.output.LayerNorm.weight",
        "molformer.encoder.layer.0.intermediate.dense.weight",
        "molformer.encoder.layer.0.output.LayerNorm.bias",
        "molformer.LayerNorm.weight",
        "lm_head.transform.LayerNorm.bias",
        "lm_head.decoder.weight",
    ):
        assert name in published


def test_round_trip_through_both_layouts_is_bit_exact() -> None:
    state = with_property_head(weights())
    hugging_face = to_hugging_face(state)
    again = from_ours(to_ours(plain_names(hugging_face), "hf", "test"), "official", F)
    assert again.keys() == state.keys()
    for name in state:
        assert torch.equal(again[name], state[name]), name
    assert torch.equal(hugging_face["classifier.out_proj.weight"], state["net.final.weight"])
    key = "molformer.encoder.layer.1.attention.self.key.weight"
    assert torch.equal(hugging_face[key], state["blocks.layers.1.attention.key_projection.weight"])


def test_prefixes_of_other_programs_are_accepted() -> None:
    hugging_face = to_hugging_face(weights())
    expected = to_ours(hugging_face, "hf", "test")
    parallel = {f"module.{name}": tensor for name, tensor in hugging_face.items()}
    base = {name.removeprefix("molformer."): tensor for name, tensor in hugging_face.items()}
    for given in (parallel, base):
        found = plain_names(given)
        assert family_of(found, "test") == "hf"
        assert to_ours(found, "hf", "test").keys() == expected.keys()


def layer_norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * scale + shift


def reference(state: dict[str, Tensor], tokens: list[int], eps: float, guard: Any) -> np.ndarray:
    """One sequence through the official equations, by loops over layers, heads and pairs, in float64."""
    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    x = p["tok_emb.weight"][tokens]

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def turned(head: np.ndarray, place: int) -> np.ndarray:
        angles = place * np.tile(10000.0 ** (-np.arange(0, F, 2) / F), 2)
        swapped = np.concatenate([-head[F // 2 :], head[: F // 2]])
        return head * np.cos(angles) + swapped * np.sin(angles)

    for i in range(LAYERS):
        block = f"blocks.layers.{i}"
        q, k, v = (dense(f"{block}.attention.{n}_projection", x) for n in ("query", "key", "value"))
        omega = p[f"{block}.attention.inner_attention.feature_map.omega"]
        mixed = np.zeros_like(x)
        for one in (slice(h * F, (h + 1) * F) for h in range(H)):
            for m in range(len(tokens)):
                left = np.maximum(turned(q[m, one], m) @ omega, 0)
                pairs = [
                    left @ np.maximum(turned(k[n, one], n) @ omega, 0) for n in range(len(tokens))
                ]
                total = sum(pair * v[n, one] for n, pair in enumerate(pairs))
                mixed[m, one] = total / guard(sum(pairs))
        a = dense(f"{block}.attention.out_projection", mixed)
        x = layer_norm(x + a, p[f"{block}.norm1.weight"], p[f"{block}.norm1.bias"], eps)
        wide = dense(f"{block}.linear1", x)
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = x + dense(f"{block}.linear2", wide)
        x = layer_norm(x, p[f"{block}.norm2.weight"], p[f"{block}.norm2.bias"], eps)
    return layer_norm(x, p["blocks.norm.weight"], p["blocks.norm.bias"], eps)


CONVENTIONS = {
    "official": (1e-5, lambda z: z + 1e-6),
    "hf": (1e-12, lambda z: max(z, 1e-6)),
}


def imported(family: str, state: dict[str, Tensor], folder: Path, words: str) -> Any:
    if family == "official":
        origin = lightning_file(folder / "N-Step-Checkpoint_3_30000.ckpt", state)
    else:
        origin = hugging_face_folder(folder / "hf", state)
    import_weights(str(origin), words, folder / "out", "auto", seed=1)
    return lit_seqlm.load(folder / "out")


def hidden(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.tensor([tokens])).hidden_BTD[0].double().numpy()


SENTENCE = [0, 4, 5, 6, 9, 7, 10, 1]


@pytest.mark.parametrize("family", ["official", "hf"])
def test_an_imported_encoder_computes_the_published_equations(
    family: str, tmp_path: Path, vocabulary: str
) -> None:
    found = hidden(imported(family, weights(), tmp_path, vocabulary).model, SENTENCE)
    expected = reference(weights(), SENTENCE, *CONVENTIONS[family])
    assert np.abs(found - expected).max() < 1e-5
    swapped = weights()
    for end in ("weight", "bias"):
        q, k = (f"blocks.layers.0.attention.{n}_projection.{end}" for n in ("query", "key"))
        swapped[q], swapped[k] = swapped[k], swapped[q]
    other = reference(swapped, SENTENCE, *CONVENTIONS[family])
    assert np.abs(other - expected).max() > 1e-3, "the test can tell a query from a key"


@pytest.mark.parametrize("family", ["official", "hf"])
def test_an_imported_encoder_keeps_the_conventions_of_its_family(
    family: str, tmp_path: Path, vocabulary: str
) -> None:
    """Tiny queries and norms, so that what guards a sum and what stands under a root are seen."""
    state = weights()
    for name in state:
        if "norm2" in name or "norm1" in name:
            state[name] = state[name] * 0.03
        if "query" in name:
            state[name] = state[name] * 1e-6
    loaded = imported(family, state, tmp_path, vocabulary)
    found = hidden(loaded.model, SENTENCE)
    expected = reference(state, SENTENCE, *CONVENTIONS[family])
    assert np.abs(found - expected).max() < 1e-5
    other = CONVENTIONS["hf" if family == "official" else "official"]
    for changed_one in ((other[0], CONVENTIONS[family][1]), (CONVENTIONS[family][0], other[1])):
        away = np.abs(reference(state, SENTENCE, *changed_one) - expected).max()
        assert away > 1e-4, "the test can tell the families apart"
    options = loaded.config["model"]
    kept = {"official": ("both", 0.1), "hf": ("output", 0.2)}[family]
    assert (options["feed_forward_dropout"], options["embedding_dropout"]) == kept


def test_a_lightning_file_is_imported_and_can_be_started_from(
    tmp_path: Path, vocabulary: str
) -> None:
    path = lightning_file(tmp_path / "official.ckpt", weights())
    report = import_weights(str(path), vocabulary, tmp_path / "out", "official", seed=1)
    assert report.tensors == {
        "in the file": len(official()), "of ours": 34, "omega": LAYERS, "output head": 5, "property head": 0,
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "report.json").read_text())["omega"] == report.omega
    loaded = lit_seqlm.load(tmp_path / "out")
    assert loaded.tokenizer.vocabulary == TOKENS
    assert loaded.tokenizer.unknown_id == 2, "official fine-tuning reads unknown tokens as padding"
    checkpoint = read_checkpoint(find_checkpoint(str(tmp_path / "out")))
    load_weights(loaded.model, checkpoint, loaded.tokenizer, "init_from=out")
    weight = loaded.model.state_dict()["output_embedding.weight"]
    assert torch.equal(weight, weights()["lang_model.head.weight"])
    with pytest.raises(UserError, match=r"holds best\.ckpt already"):
        import_weights(str(path), vocabulary, tmp_path / "out", "auto", seed=1)


def test_a_deepchem_file_is_imported(tmp_path: Path, vocabulary: str) -> None:
    state = {f"module.{name}": t for name, t in to_hugging_face(weights()).items()}
    torch.save({"model_state_dict": state, "global_step": 7}, tmp_path / "model.pt")
    report = import_weights(
        str(tmp_path / "model.pt"), vocabulary, tmp_path / "out", "auto", seed=1
    )
    assert report.family == "hf"
    assert any("no config.json" in warning for warning in report.warnings)


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("place", ["hyper_parameters", "rng", "callbacks"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, vocabulary: str, place: str) -> None:
    sign, path = tmp_path / "was_run", tmp_path / "evil.ckpt"
    torch.save({"state_dict": weights(), place: {"a": Payload(sign)}}, path)
    with pytest.raises(UserError, match=r"mkdir\).*nothing of it was run.*\.safetensors"):
        import_weights(str(path), vocabulary, tmp_path / "out", "auto", seed=1)
    assert not sign.exists()
    assert not (tmp_path / "out").exists()
    torch.load(path, weights_only=False)
    assert sign.exists(), "the payload would have run"


def test_a_bare_pickle_and_an_arbitrary_class_are_refused(tmp_path: Path, vocabulary: str) -> None:
    sign, path = tmp_path / "was_run", tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps({"state_dict": Payload(sign)}))
    with pytest.raises(UserError, match=r"is damaged\. Nothing of it was run"):
        import_weights(str(path), vocabulary, tmp_path / "out", "auto", seed=1)
    assert not sign.exists()
    torch.save({"state_dict": weights(), "model": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        import_weights(str(path), vocabulary, tmp_path / "out", "auto", seed=1)


def without(state: dict[str, Tensor], *ends: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith(ends)}


def changed(name: str, value: Tensor) -> dict[str, Tensor]:
    return weights() | {name: value}


OMEGA_0 = "blocks.layers.0.attention.inner_attention.feature_map.omega"
WRONG = {
    "missing": (without(weights(), "1.norm2.bias"), r"it has no blocks\.layers\.1\.norm2\.bias"),
    "half a head": (without(weights(), "ln_f.bias"), r"it has no lang_model\.ln_f\.bias"),
    "left over": (changed("pos_emb", torch.ones(1)), "no place in a MoLFormer.*pos_emb"),
    "shape": (changed("blocks.norm.bias", torch.ones(3)), r"trunk\.norm\.bias has shape \(3,\)"),
    "zero omega": (changed(OMEGA_0, torch.zeros(F, R)), r"features\.omega is all zero"),
    "not finite": (changed("blocks.norm.bias", torch.full((D,), math.nan)), "not finite"),
    "frequencies": (
        changed("blocks.layers.0.attention.rotaryemb.inv_freq", torch.ones(F // 2)),
        "not the rotary frequencies",
    ),
    "bert": ({"bert.embeddings.word_embeddings.weight": torch.ones(V, D)}, "not MoLFormer's"),
    "generative": (changed("tok_emb.weight", torch.ones(2488, D)), "this is GP-MoLFormer"),
    "no weights": ({}, "holds no weights"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_a_whole_molformer_is_refused_by_name(
    case: str, tmp_path: Path, vocabulary: str
) -> None:
    state, message = WRONG[case]
    torch.save({"state_dict": state}, tmp_path / "some.ckpt")
    with pytest.raises(UserError, match=message):
        import_weights(str(tmp_path / "some.ckpt"), vocabulary, tmp_path / "out", "auto", seed=1)
    assert not (tmp_path / "out").exists()


WRONG_SETTINGS = {
    "decoder": ({"is_decoder": True}, "GP-MoLFormer"),
    "causal": ({"architectures": ["MolformerForCausalLM"]}, "GP-MoLFormer"),
    "model_type": ({"model_type": "roberta"}, "model_type=roberta; only model_type=molformer"),
    "kernel": ({"feature_map_kernel": "elu"}, "only feature_map_kernel=relu"),
    "sizes": ({"num_hidden_layers": 12}, "says num_hidden_layers=12, its tensors say 2"),
    "heads": ({"num_attention_heads": 8}, "say 8 heads"),
    "no number": ({"layer_norm_eps": "${oc.env:HOME}"}, "neither a number nor one of its words"),
    "no word": (
        {"lit_seqlm": {"model": {"attention.guard": "a,b"}}},
        "neither a number nor one of its words",
    ),
    "digest": ({"lit_seqlm": {"vocabulary_sha256": "0" * 64}}, "sha256"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_settings_of_another_model_are_refused(case: str, tmp_path: Path) -> None:
    settings, message = WRONG_SETTINGS[case]
    folder = hugging_face_folder(tmp_path / "hf", weights(), **settings)
    with pytest.raises(UserError, match=message):
        import_weights(str(folder), None, tmp_path / "out", "auto", seed=1)


def test_settings_cannot_choose_what_is_built(tmp_path: Path) -> None:
    own = {"model": {"_target_": "os.mkdir", "attention._target_": "os.mkdir"}}
    folder = hugging_face_folder(tmp_path / "hf", weights(), lit_seqlm=own, _target_="os.mkdir")
    import_weights(str(folder), None, tmp_path / "out", "auto", seed=1)
    config = read_checkpoint(tmp_path / "out" / "best.ckpt")["config"]
    assert config["model"]["_target_"] == "lit_seqlm.model.encoder.Encoder"
    assert config["model"]["attention"]["_target_"].startswith("lit_seqlm.")


def test_the_wrong_family_or_list_of_tokens_is_refused(tmp_path: Path, vocabulary: str) -> None:
    path = tmp_path / "some.ckpt"
    torch.save({"state_dict": weights()}, path)
    with pytest.raises(UserError, match="is in the official layout"):
        import_weights(str(path), vocabulary, tmp_path / "out", "hf", seed=1)
    with pytest.raises(UserError, match=r"--family oficial\. Did you mean official"):
        import_weights(str(path), vocabulary, tmp_path / "out", "oficial", seed=1)
    short = tmp_path / "short.txt"
    short.write_text("\n".join(TOKENS[:-1]))
    with pytest.raises(UserError, match="11 tokens, the weights have 12 rows"):
        import_weights(str(path), str(short), tmp_path / "out", "auto", seed=1)
    moved = tmp_path / "moved.txt"
    moved.write_text("\n".join([*TOKENS[1:4], TOKENS[0], *TOKENS[4:]]))
    with pytest.raises(UserError, match="<bos> should be token 0"):
        import_weights(str(path), str(moved), tmp_path / "out", "auto", seed=1)
    alone = tmp_path / "alone"
    alone.mkdir()
    with pytest.raises(UserError, match="Say --vocabulary FILE"):
        import_weights(str(path.rename(alone / "a.ckpt")), None, tmp_path / "out", "auto", seed=1)


def test_published_sizes_need_the_published_list(tmp_path: Path) -> None:
    tokens = [*TOKENS[:4], *(f"[{i}C]" for i in range(2357)), "<unk>"]
    state = weights()
    for name in ("tok_emb.weight", "lang_model.head.weight"):
        state[name] = torch.ones(2362, D)
    torch.save({"state_dict": state}, tmp_path / "some.ckpt")
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    with pytest.raises(UserError, match=r"token 4 is '\[0C\]', in MoLFormer's list 'C'"):
        import_weights(str(tmp_path / "some.ckpt"), None, tmp_path / "out", "auto", seed=1)
    tokens[: len(OFFICIAL_HEAD)] = OFFICIAL_HEAD
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    with pytest.raises(UserError, match=r"sha256 is .* weights' list 0190ba2e9cf5"):
        import_weights(str(tmp_path / "some.ckpt"), None, tmp_path / "out", "auto", seed=1)


def test_what_a_file_lacks_is_drawn_from_the_seed_and_said(tmp_path: Path, vocabulary: str) -> None:
    state = {k: v for k, v in weights().items() if not k.startswith("lang_model")}
    path = lightning_file(tmp_path / "base.ckpt", without(state, "omega"))
    name = "trunk.blocks.0.attention.features.omega"
    drawn = []
    for seed, folder in ((1, "a"), (1, "b"), (2, "c")):
        report = import_weights(str(path), vocabulary, tmp_path / folder, "auto", seed=seed)
        assert report.omega == report.output_head == f"drawn from seed {seed}"
        assert "OMEGA IS NOT IN THE FILE" in report.warnings[1]
        drawn.append(lit_seqlm.load(tmp_path / folder).model.state_dict()[name])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    torch.save({"state_dict": without(state, "omega")}, path)
    with pytest.raises(UserError, match="how many heads"):
        import_weights(str(path), vocabulary, tmp_path / "d", "auto", seed=1)


def test_a_property_head_is_kept_apart(tmp_path: Path, vocabulary: str) -> None:
    state = with_property_head(weights())
    torch.save({"state_dict": state}, tmp_path / "tuned.ckpt")
    report = import_weights(
        str(tmp_path / "tuned.ckpt"), vocabulary, tmp_path / "out", "auto", seed=1
    )
    assert report.tensors["property head"] == 6
    kept = load_file(tmp_path / "out" / "property_head.safetensors")
    assert torch.equal(kept["head.dense2.weight"], state["net.fc2.weight"])


def run_folder(path: Path, **options: Any) -> Path:
    """A run of this program with conventions of its own, of a size of its own."""
    import_weights_from = path.with_name("seed.ckpt")
    torch.save({"state_dict": weights(seed=5)}, import_weights_from)
    words = path.with_name("words.txt")
    words.write_text("\n".join(TOKENS))
    import_weights(str(import_weights_from), str(words), path, "auto", seed=1)
    checkpoint = read_checkpoint(path / "best.ckpt")
    checkpoint["config"]["model"] |= options
    checkpoint["tokenizer"]["isomeric"] = True
    torch.save(checkpoint, path / "best.ckpt")
    return path


def test_an_exported_run_comes_back_bit_for_bit(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", pad_handling="attend", dropout=0.3)
    report = export_run(str(run), tmp_path / "hf")
    assert report.num_parameters == 2 * V * D + LAYERS * (4 * D * D + 2 * D * W + 9 * D + W) + (
        D * D + 5 * D
    )
    files = {"model.safetensors", "config.json", "vocab.json", "bert_vocab.txt", "report.json"}
    assert {file.name for file in (tmp_path / "hf").iterdir()} == files
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert settings["architectures"] == ["MolformerForMaskedLM"]
    assert (settings["num_attention_heads"], settings["layer_norm_eps"]) == (H, 1e-5)
    assert settings["deterministic_eval"] is True
    import_weights(str(tmp_path / "hf"), None, tmp_path / "again", "auto", seed=9)
    before, after = (
        read_checkpoint(run / "best.ckpt"),
        read_checkpoint(tmp_path / "again/best.ckpt"),
    )
    assert before["state_dict"].keys() == after["state_dict"].keys()
    for name, tensor in before["state_dict"].items():
        assert torch.equal(tensor, after["state_dict"][name]), name
    assert before["tokenizer"] == after["tokenizer"]
    assert before["config"]["model"] == after["config"]["model"]
    (tmp_path / "hf" / "vocab.json").write_text((tmp_path / "hf" / "vocab.json").read_text()
        .replace('"C": 4, "c": 5', '"C": 5, "c": 4'))  # fmt: skip
    with pytest.raises(UserError, match="sha256"):
        import_weights(str(tmp_path / "hf"), None, tmp_path / "third", "auto", seed=9)


def test_a_fine_tuned_run_is_exported_with_its_head(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    checkpoint = read_checkpoint(run / "best.ckpt")
    state = without(checkpoint["state_dict"])
    state = {k: v for k, v in state.items() if not k.startswith("model.output_embedding")}
    for part, shape in {"dense1": (D, D), "dense2": (D, D), "out": (3, D)}.items():
        state |= {f"model.head.{part}.weight": torch.randn(shape)}
        state |= {f"model.head.{part}.bias": torch.randn(shape[:1])}
    state["model.scale.mean"] = torch.zeros(3, dtype=torch.float64)
    torch.save(checkpoint | {"state_dict": state}, run / "best.ckpt")
    report = export_run(str(run), tmp_path / "hf")
    assert any("standardised" in warning for warning in report.warnings)
    written = load_file(tmp_path / "hf" / "model.safetensors")
    assert torch.equal(written["classifier.dense.weight"], state["model.head.dense1.weight"])
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert settings["architectures"] == ["MolformerForSequenceClassification"]
    assert settings["num_labels"] == 3


@pytest.mark.parametrize(
    ("kind", "pooling"), [("linear.LinearHead", "mean"), ("molformer.MolformerHead", "first")]
)
def test_a_head_that_the_layout_cannot_say_is_not_exported(
    kind: str, pooling: str, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run")
    checkpoint = read_checkpoint(run / "best.ckpt")
    checkpoint["config"]["head"] = {"_target_": f"lit_seqlm.head.{kind}", "pooling": pooling}
    state = {k: v for k, v in checkpoint["state_dict"].items() if "output_embedding" not in k}
    state |= {"model.head.out.weight": torch.randn(3, D), "model.head.out.bias": torch.randn(3)}
    torch.save(checkpoint | {"state_dict": state}, run / "best.ckpt")
    with pytest.raises(UserError, match=rf"{kind.partition('.')[2]} with pooling={pooling}"):
        export_run(str(run), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("option", ["positions", "activation"])
def test_a_model_that_the_layout_cannot_say_is_not_exported(option: str, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", **{option: "absolute" if option == "positions" else "relu"})
    with pytest.raises(UserError, match=f"its model has {option}="):
        export_run(str(run), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_another_attention_is_not_exported(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    checkpoint = read_checkpoint(run / "best.ckpt")
    checkpoint["state_dict"] = without(checkpoint["state_dict"], "omega")
    torch.save(checkpoint, run / "best.ckpt")
    with pytest.raises(UserError, match="Only an encoder with linear attention"):
        export_run(str(run), tmp_path / "hf")


def test_a_run_of_this_program_needs_no_import(tmp_path: Path, vocabulary: str) -> None:
    run = run_folder(tmp_path / "run")
    with pytest.raises(UserError, match=r"say init_from=.*best\.ckpt, no import is needed"):
        import_weights(str(run / "best.ckpt"), vocabulary, tmp_path / "out", "auto", seed=1)


@pytest.mark.parametrize("preset", ["molformer_official", "molformer_hf"])
def test_both_presets_have_the_published_size(preset: str) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from lit_seqlm.config import register

    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        model = OmegaConf.to_container(compose("config", overrides=[f"model={preset}"]).model)
    layers = model.pop("num_layers")
    encoder = build(model, vocab_size=2362, num_layers=1)  # one of them is enough to count
    counted = sum(parameter.numel() for parameter in encoder.parameters())
    assert counted + (layers - 1) * 3_546_624 == 46_781_184


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    path = ROOT / "experiments" / "convert_molformer.py"
    spec = importlib.util.spec_from_file_location("convert_molformer", path)
    assert spec
    assert spec.loader
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(sys, "argv", [path.name, *words])
    return program.main()


def test_the_command_imports_exports_and_tells(
    tmp_path: Path,
    vocabulary: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = lightning_file(tmp_path / "official.ckpt", weights())
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    words = ["import", str(path), "--vocabulary", vocabulary, "--output", ours]
    assert command(monkeypatch, *words) == 0
    told = capsys.readouterr().out
    assert "read from the file" in told
    assert f"init_from={ours}" in told.replace("\n", "")
    assert command(monkeypatch, "export", ours, "--output", theirs) == 0
    assert "12 tokens" in capsys.readouterr().out
    assert command(monkeypatch, "export", ours, "--output", theirs) == 2
    assert "is there already" in capsys.readouterr().err
