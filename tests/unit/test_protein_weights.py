"""Weights of ProteinLM and TAPE in their own layouts: names, numbers, refusals. All files are generated here."""

# T = tokens, V = vocabulary, D = hidden size, H = heads, F = size of a head, W = feed-forward width, P = positions

import argparse
import enum
import importlib.util
import json
import math
import os
import pickle
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file, save_file
from torch import Tensor

import lit_seqlm
from lit_seqlm.checkpoint import load_weights, read_checkpoint
from lit_seqlm.config import build, register
from lit_seqlm.errors import UserError
from lit_seqlm.hf.proteins.convert import import_protein
from lit_seqlm.hf.proteins.export import export_protein
from lit_seqlm.hf.proteins.keys import from_ours, plain_names, to_ours
from lit_seqlm.hf.proteins.rows import order_of
from tests.behaviour.test_predict import run

ROOT = Path(__file__).parents[2]
D, LAYERS, H, W, P = 16, 2, 4, 24, 40
F = D // H
LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
SEQUENCE = "MKVLAWXBZUO" + LETTERS
PLM_ID = {letter: 6 + place for place, letter in enumerate(LETTERS)}
TAPE_ID = {letter: 5 + place for place, letter in enumerate(LETTERS)}
State = dict[str, Tensor]
Imported = Callable[..., Any]


# -- what the two programs would write, by hand and not from our table


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    """Small numbers, the scales of norms around one."""
    generator = torch.Generator().manual_seed(seed)
    norm = ("layernorm.weight", "LayerNorm.weight")
    return {
        name: 0.3 * torch.randn(shape, generator=generator) + float(name.endswith(norm))
        for name, shape in shapes.items()
    }


def both(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def tape_shapes(rows: int = 30, size: int = D, layers: int = LAYERS, width: int = W, places: int = P,
                types: int = 2) -> dict[str, tuple[int, ...]]:  # fmt: skip
    there = "bert.embeddings"
    shapes = {
        f"{there}.word_embeddings.weight": (rows, size),
        f"{there}.position_embeddings.weight": (places, size),
        f"{there}.token_type_embeddings.weight": (types, size),
        **both(f"{there}.LayerNorm", size),
    }
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= both(f"{layer}.attention.self.{part}", size, size)
        shapes |= both(f"{layer}.attention.output.dense", size, size)
        shapes |= both(f"{layer}.attention.output.LayerNorm", size)
        shapes |= both(f"{layer}.intermediate.dense", width, size)
        shapes |= both(f"{layer}.output.dense", size, width)
        shapes |= both(f"{layer}.output.LayerNorm", size)
    shapes |= both("bert.pooler.dense", size, size)
    shapes |= {"mlm.bias": (rows,)} | both("mlm.transform.dense", size, size)
    return shapes | both("mlm.transform.LayerNorm", size)


def tape_weights(seed: int = 0) -> State:
    state = drawn(tape_shapes(), seed)
    return state | {"mlm.decoder.weight": state["bert.embeddings.word_embeddings.weight"].clone()}


def plm_shapes(rows: int = 128, size: int = D, layers: int = LAYERS, width: int = W,
               places: int = P) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Query, key and value are apart here: what fuses them is `fused`."""
    shapes = {
        "language_model.embedding.word_embeddings.weight": (rows, size),
        "language_model.embedding.position_embeddings.weight": (places, size),
    }
    for i in range(layers):
        layer = f"language_model.transformer.layers.{i}"
        shapes |= both(f"{layer}.input_layernorm", size)
        for part in ("query", "key", "value"):
            shapes |= both(f"{layer}.attention.{part}", size, size)
        shapes |= both(f"{layer}.attention.dense", size, size)
        shapes |= both(f"{layer}.post_attention_layernorm", size)
        shapes |= both(f"{layer}.mlp.dense_h_to_4h", width, size)
        shapes |= both(f"{layer}.mlp.dense_4h_to_h", size, width)
    shapes |= both("language_model.transformer.final_layernorm", size)
    shapes |= {"lm_head.bias": (rows,)} | both("lm_head.dense", size, size)
    return shapes | both("lm_head.layernorm", size)


def plm_weights(seed: int = 0) -> State:
    return drawn(plm_shapes(), seed)


def fused(q: Tensor, k: Tensor, v: Tensor, version: float, size: int = F) -> Tensor:
    """Rows of a query_key_value in the order of that version of Megatron, one by one."""
    num_heads, parts = len(q) // size, (q, k, v)
    if version == 0:
        rows = [part[h * size + f] for part in parts for h in range(num_heads) for f in range(size)]
    elif version == 1:
        rows = [part[h * size + f] for h in range(num_heads) for f in range(size) for part in parts]
    else:
        rows = [part[h * size + f] for h in range(num_heads) for part in parts for f in range(size)]
    return torch.stack(rows)


def share(state: State, rank: int, ranks: int, version: float) -> State:
    """What one tensor-parallel rank holds."""

    def mine(tensor: Tensor, dim: int) -> Tensor:
        return tensor.chunk(ranks, dim)[rank].clone()

    held: State = {}
    for name, tensor in state.items():
        if ".attention.query." in name:
            parts = [mine(state[name.replace("query", p)], 0) for p in ("query", "key", "value")]
            held[name.replace("query", "query_key_value")] = fused(*parts, version)
        elif ".attention.key." in name or ".attention.value." in name:
            continue
        elif "word_embeddings" in name or "dense_h_to_4h" in name or name == "lm_head.bias":
            held[name] = mine(tensor, 0)
        elif name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")):
            held[name] = mine(tensor, 1)
        else:
            held[name] = tensor
    return held


def nested(flat: State) -> dict[str, Any]:
    """As Megatron nests them: the transformer and the head are flat inside."""
    model: dict[str, Any] = {"language_model": {"embedding": {}, "transformer": {}}, "lm_head": {}}
    for name, tensor in flat.items():
        if name.startswith("lm_head."):
            model["lm_head"][name.removeprefix("lm_head.")] = tensor
        elif ".embedding." in name:
            kind = name.split(".")[2]
            model["language_model"]["embedding"][kind] = {"weight": tensor}
        else:
            inner = name.removeprefix("language_model.transformer.")
            model["language_model"]["transformer"][inner] = tensor
    return model


ARGS = {
    "num_layers": LAYERS, "hidden_size": D, "num_attention_heads": H, "ffn_hidden_size": W, "openai_gelu": False,
    "max_position_embeddings": P, "padded_vocab_size": 128, "make_vocab_size_divisible_by": 128,
    "layernorm_epsilon": 1e-3, "hidden_dropout": 0.2, "attention_dropout": 0.05, "bias_gelu_fusion": True,
    "apply_residual_connection_post_layernorm": False, "params_dtype": torch.float16,
}  # fmt: skip


def megatron_folder(
    path: Path, state: State, ranks: int = 1, version: float | None = 3.0, args: dict[str, Any] | None = ARGS,
    **beside: Any,
) -> Path:  # fmt: skip
    """The folder of one iteration, as ProteinLM's code saves it."""
    for rank in range(ranks):
        content: dict[str, Any] = {"iteration": 7, "rng": np.random.get_state()}
        content["python"] = random.getstate()
        if args is not None:
            content["args"] = argparse.Namespace(**args, tensor_model_parallel_size=ranks)
        if version is not None:
            content["checkpoint_version"] = version
        content["model"] = nested(share(state, rank, ranks, version or 0))
        folder = path / f"mp_rank_{rank:02d}"
        folder.mkdir(parents=True)
        torch.save(content | beside, folder / "model_optim_rng.pt")
    return path


SETTINGS = {
    "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": H, "intermediate_size": W, "vocab_size": 30,
    "hidden_act": "gelu", "layer_norm_eps": 1e-3, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.05,
    "max_position_embeddings": P, "type_vocab_size": 2, "base_model": "transformer", "finetuning_task": None,
}  # fmt: skip


def tape_folder(path: Path, state: State, **settings: Any) -> Path:
    path.mkdir()
    torch.save(state, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (path / "config.json").write_text(json.dumps(SETTINGS | settings))
    return path


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    def load(origin: Path, final_ln: str = "apply", name: str = "out", **options: Any) -> Any:
        usual = {"layout": "auto", "version": None, "num_heads": None, "seed": 1}
        import_protein(str(origin), tmp_path / name, final_ln=final_ln, **usual | options)
        return lit_seqlm.load(tmp_path / name)

    return load


# -- the published equations, in float64


def norm(x: np.ndarray, p: dict[str, np.ndarray], name: str, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def dense(x: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def exact_gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(x: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    q, k, v = (dense(x, p, f"{name}.{part}") for part in ("query", "key", "value"))
    mixed = np.zeros_like(x)
    for one in (slice(h * F, (h + 1) * F) for h in range(H)):
        for t in range(len(x)):
            scores = np.array([q[t, one] @ k[s, one] / math.sqrt(F) for s in range(len(x))])
            weights = np.exp(scores - scores.max())
            mixed[t, one] = sum(w * v[s, one] for s, w in enumerate(weights / weights.sum()))
    return mixed


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def plm(state: State, ids: list[int], gelu: Any = tanh_gelu, final: bool = True,
        eps: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """ProteinLM's pre-LN BERT: hidden states and log-probabilities of its own 128 rows."""
    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    words = p["language_model.embedding.word_embeddings.weight"]
    x = words[ids] + p["language_model.embedding.position_embeddings.weight"][: len(ids)]
    for i in range(LAYERS):
        layer = f"language_model.transformer.layers.{i}"
        read = norm(x, p, f"{layer}.input_layernorm", eps)
        x = x + dense(attention(read, p, f"{layer}.attention"), p, f"{layer}.attention.dense")
        read = norm(x, p, f"{layer}.post_attention_layernorm", eps)
        wide = gelu(dense(read, p, f"{layer}.mlp.dense_h_to_4h"))
        x = x + dense(wide, p, f"{layer}.mlp.dense_4h_to_h")
    if final:
        x = norm(x, p, "language_model.transformer.final_layernorm", eps)
    head = norm(exact_gelu(dense(x, p, "lm_head.dense")), p, "lm_head.layernorm", eps)
    return x, log_softmax(head @ words.T + p["lm_head.bias"])


def tape(state: State, ids: list[int], eps: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """TAPE's post-LN BERT: hidden states and log-probabilities of its 30 rows."""
    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    there = "bert.embeddings"
    words = p[f"{there}.word_embeddings.weight"]
    x = words[ids] + p[f"{there}.position_embeddings.weight"][: len(ids)]
    x = norm(x + p[f"{there}.token_type_embeddings.weight"][0], p, f"{there}.LayerNorm", eps)
    for i in range(LAYERS):
        layer = f"bert.encoder.layer.{i}"
        added = dense(attention(x, p, f"{layer}.attention.self"), p, f"{layer}.attention.output.dense")  # fmt: skip
        x = norm(x + added, p, f"{layer}.attention.output.LayerNorm", eps)
        wide = exact_gelu(dense(x, p, f"{layer}.intermediate.dense"))
        x = norm(x + dense(wide, p, f"{layer}.output.dense"), p, f"{layer}.output.LayerNorm", eps)
    head = exact_gelu(dense(x, p, "mlm.transform.dense"))
    head = norm(head, p, "mlm.transform.LayerNorm", eps)
    return x, log_softmax(head @ words.T + p["mlm.bias"])


def answers(loaded: Any, sequence: str = SEQUENCE) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and log-probabilities of our rows, with the second residue masked."""
    tokens = torch.from_numpy(loaded.tokenizer.encode([sequence]).ids.astype(np.int64))
    tokens[2] = loaded.tokenizer.mask_id
    with torch.inference_mode():
        hidden_BTD = loaded.model(tokens[None]).hidden_BTD
        log_prob_BTV = loaded.model.output_embedding.log_prob(hidden_BTD)
    return hidden_BTD[0].double().numpy(), log_prob_BTV[0].double().numpy()


PLM_IDS = [2, *(PLM_ID[letter] for letter in SEQUENCE)]
PLM_IDS[2] = 1
TAPE_IDS = [2, *(TAPE_ID[letter] for letter in SEQUENCE), 3]
TAPE_IDS[2] = 1
# theirs for each of our ids: five specials, then the letters
PLM_ROWS = [0, 1, 2, 3, 4, *PLM_ID.values()]


# -- sizes and names


def test_the_published_proteinlm_has_the_parameters_of_its_scripts() -> None:
    shapes = plm_shapes(size=1024, layers=16, width=4096, places=2176)
    assert sum(math.prod(shape) for shape in shapes.values()) == 204_952_704
    fused_shapes = {
        name.replace("query", "query_key_value"): (3 * shape[0], *shape[1:]) if ".query." in name else shape
        for name, shape in shapes.items()
        if ".attention.key." not in name and ".attention.value." not in name
    }  # fmt: skip
    theirs = {name: torch.empty(shape, device="meta") for name, shape in fused_shapes.items()}
    ours = to_ours(theirs, "megatron", "test")
    assert sum(tensor.numel() for tensor in ours.values()) == 204_952_704
    assert ours["trunk.blocks.15.attention.qkv.weight"].shape == (3072, 1024)
    assert ours["trunk.blocks.15.feed_forward.out.weight"].shape == (1024, 4096)


def test_the_preset_of_tape_has_its_tensors() -> None:
    shapes = tape_shapes(size=768, layers=12, width=3072, places=8096)
    beside = ("token_type", "pooler")
    counted = sum(math.prod(s) for n, s in shapes.items() if not any(part in n for part in beside))
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        node = compose("config", overrides=["model=tape_bert_base", "paths.run_dir=x"]).model
    with torch.device("meta"):
        model = build(node, vocab_size=32)
    extra = 2 * (768 + 1)  # rows of <nterm> and <cterm>
    assert sum(parameter.numel() for parameter in model.parameters()) == counted + extra


def test_tape_and_back_is_bit_exact() -> None:
    state = tape_weights()
    pooler = [name for name in state if "pooler" in name]
    beside = (*pooler, "mlm.decoder.weight", "bert.embeddings.token_type_embeddings.weight")
    plain = {name: tensor for name, tensor in state.items() if name not in beside}
    again = from_ours(to_ours(plain, "tape", "test"), "tape")
    assert again.keys() == plain.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in plain.items())


def test_prefixes_of_other_programs_are_accepted() -> None:
    state = tape_weights()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    base = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
    assert plain_names(parallel).keys() == plain_names(base).keys() == state.keys()


def test_every_row_of_proteinlm_is_kept_once_and_letters_are_one_lower() -> None:
    order = order_of("megatron", 128)
    assert sorted(order) == list(range(128))
    assert order[:30] == PLM_ROWS
    assert order[30] == 5, "[unused1]"
    assert order[31:] == list(range(31, 128))


# -- numbers


@pytest.mark.parametrize(
    ("version", "ranks"),
    [(0.0, 1), (1.0, 1), (2.0, 1), (3.0, 1), (0.0, 2), (1.0, 4), (3.0, 2)],
)
def test_proteinlm_computes_its_equations(
    version: float, ranks: int, tmp_path: Path, imported: Imported
) -> None:
    folder = megatron_folder(tmp_path / "iter_0000007", plm_weights(), ranks, version)
    hidden, log_prob = answers(imported(folder))
    expected_hidden, expected = plm(plm_weights(), PLM_IDS)
    assert np.abs(hidden - expected_hidden).max() < 1e-5
    assert log_prob.shape == (len(PLM_IDS), 128)
    assert np.abs(log_prob[:, :30] - expected[:, PLM_ROWS]).max() < 1e-5
    assert np.abs(log_prob[:, order_of("megatron", 128).index(5)] - expected[:, 5]).max() < 1e-5


def test_the_wrong_order_of_queries_keys_and_values_would_be_seen(
    tmp_path: Path, imported: Imported
) -> None:
    expected = plm(plm_weights(), PLM_IDS)[0]
    for version in (0, 1):
        folder = megatron_folder(tmp_path / str(version), plm_weights(), version=version, args=ARGS)
        path = folder / "mp_rank_00/model_optim_rng.pt"
        content = torch.load(path, weights_only=False)
        torch.save(content | {"checkpoint_version": 2.0}, path)
        found = answers(imported(folder, name=f"out{version}"))[0]
        assert np.abs(found - expected).max() > 1e-2


def test_gelu_is_by_tanh_where_megatron_fused_it_and_exact_where_not(
    tmp_path: Path, imported: Imported
) -> None:
    plain = megatron_folder(tmp_path / "m", plm_weights(), args=ARGS | {"bias_gelu_fusion": False})
    found = answers(imported(plain))[0]
    exact, by_tanh = (plm(plm_weights(), PLM_IDS, gelu)[0] for gelu in (exact_gelu, tanh_gelu))
    assert np.abs(found - exact).max() < 1e-5
    assert np.abs(by_tanh - exact).max() > 5e-5, "the test can tell them apart"


def test_final_ln_literal_is_what_the_downstream_code_reads(
    tmp_path: Path, imported: Imported
) -> None:
    folder = megatron_folder(tmp_path / "m", plm_weights())
    loaded = imported(folder, final_ln="literal")
    found = answers(loaded)[0]
    expected = plm(plm_weights(), PLM_IDS, exact_gelu, final=False)[0]
    assert np.abs(found - expected).max() < 1e-5
    assert (loaded.config["model"]["norm"], loaded.config["model"]["activation"]) == ("pre_bare", "gelu")  # fmt: skip
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["conventions"]["final_ln"] == "literal"
    kept = load_file(tmp_path / "out/beside.safetensors")
    name = "language_model.transformer.final_layernorm.weight"
    assert torch.equal(kept["trunk.norm.weight"], plm_weights()[name])


def test_tape_computes_its_equations(tmp_path: Path, imported: Imported) -> None:
    hidden, log_prob = answers(imported(tape_folder(tmp_path / "tape", tape_weights())))
    expected_hidden, expected = tape(tape_weights(), TAPE_IDS)
    assert np.abs(hidden - expected_hidden).max() < 1e-5
    assert np.abs(log_prob[:, :30] - expected).max() < 1e-5
    assert (np.exp(log_prob[:, 30:].astype(np.float32)) == 0).all(), "<nterm> and <cterm>"


def test_tape_agrees_with_transformers(tmp_path: Path, imported: Imported) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="experiments/benchmarks/molecules_requirements.txt has it"
    )
    torch.manual_seed(3)
    settings = {k: v for k, v in SETTINGS.items() if k not in ("base_model", "finetuning_task")}
    peer = transformers.BertForMaskedLM(transformers.BertConfig(**settings)).eval()
    for parameter in peer.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape))
    state = {
        name.replace("cls.predictions.", "mlm."): tensor.clone()
        for name, tensor in peer.state_dict().items()
        if name != "cls.predictions.decoder.bias"  # is cls.predictions.bias again
    }
    hidden, log_prob = answers(imported(tape_folder(tmp_path / "tape", state)))
    with torch.inference_mode():
        output = peer(torch.tensor([TAPE_IDS]), output_hidden_states=True)
    assert np.abs(hidden - output.hidden_states[-1][0].numpy()).max() < 1e-5
    assert np.abs(log_prob[:, :30] - output.logits.log_softmax(-1)[0].numpy()).max() < 1e-5


# -- what is read besides


def test_half_precision_becomes_float32(tmp_path: Path, imported: Imported) -> None:
    half = {name: tensor.half() for name, tensor in plm_weights().items()}
    loaded = imported(megatron_folder(tmp_path / "m", half))
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {torch.float32}
    expected = plm(half, PLM_IDS)[0]
    assert np.abs(answers(loaded)[0] - expected).max() < 1e-5


def test_options_of_the_files_are_kept(tmp_path: Path, imported: Imported) -> None:
    megatron = imported(megatron_folder(tmp_path / "m", plm_weights()), name="a")
    other = imported(tape_folder(tmp_path / "t", tape_weights()), name="b")
    for loaded, ends, kept in ((megatron, "cls", "pre"), (other, "cls_sep", "post")):
        model = loaded.config["model"]
        assert (model["norm"], model["layer_norm_eps"]) == (kept, 1e-3)
        assert (model["dropout"], model["embedding_dropout"]) == (0.2, 0.2)
        assert model["attention"]["dropout"] == 0.05
        assert (loaded.tokenizer.ends, model["max_len"]) == (ends, P)
        assert loaded.config["data"]["max_len"] == P - loaded.tokenizer.num_ends
    assert read_checkpoint(tmp_path / "a/best.ckpt")["imported"]["layout"] == "megatron"


@pytest.mark.parametrize("what", ["root", "iteration", "rank", "file", "other name", "release"])
def test_a_megatron_checkpoint_is_found_by_each_of_its_names(
    what: str, tmp_path: Path, imported: Imported
) -> None:
    root = tmp_path / "run"
    name = "release" if what == "release" else "iter_0000007"
    ranks = 1 if what == "other name" else 2
    folder = megatron_folder(root / name, plm_weights(), ranks)
    (root / "latest_checkpointed_iteration.txt").write_text("release\n" if what == "release" else "7\n")  # fmt: skip
    origins = {
        "root": root, "release": root, "iteration": folder, "rank": folder / "mp_rank_01",
        "file": folder / "mp_rank_00/model_optim_rng.pt", "other name": tmp_path / "proteinlm.pt",
    }  # fmt: skip
    if what == "other name":
        (folder / "mp_rank_00/model_optim_rng.pt").rename(origins[what])
    found = answers(imported(origins[what]))[0]
    assert np.abs(found - plm(plm_weights(), PLM_IDS)[0]).max() < 1e-5


def test_a_file_without_settings_needs_its_heads(tmp_path: Path, imported: Imported) -> None:
    folder = megatron_folder(tmp_path / "m", plm_weights(), version=None, args=None)
    with pytest.raises(UserError, match=r"num_attention_heads.*--heads"):
        imported(folder)
    eps = 1e-12  # where nothing is said
    loaded = imported(folder, num_heads=H)
    assert np.abs(answers(loaded)[0] - plm(plm_weights(), PLM_IDS, eps=eps)[0]).max() < 1e-5
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert any("checkpoint_version" in warning for warning in report["warnings"])
    lone = tmp_path / "bert.bin"
    torch.save(tape_weights(), lone)
    with pytest.raises(UserError, match="Say --heads 12"):
        imported(lone, name="b")
    loaded = imported(lone, name="b", num_heads=H)
    assert np.abs(answers(loaded)[0] - tape(tape_weights(), TAPE_IDS, eps)[0]).max() < 1e-5


def test_a_version_that_is_said_is_read_so(tmp_path: Path, imported: Imported) -> None:
    folder = megatron_folder(tmp_path / "m", plm_weights(), version=3.0)
    path = folder / "mp_rank_00/model_optim_rng.pt"
    content = torch.load(path, weights_only=False)
    del content["checkpoint_version"]
    torch.save(content, path)
    found = answers(imported(folder, version=3.0))[0]
    assert np.abs(found - plm(plm_weights(), PLM_IDS)[0]).max() < 1e-5


@pytest.mark.parametrize("layout", ["tape", "megatron"])
def test_a_missing_output_head_is_drawn_from_the_seed_and_said(
    layout: str, tmp_path: Path, imported: Imported
) -> None:
    if layout == "tape":
        state = {k: v for k, v in tape_weights().items() if not k.startswith("mlm.")}
        origin = tape_folder(tmp_path / "t", {k.removeprefix("bert."): v for k, v in state.items()})
    else:
        state = {k: v for k, v in plm_weights().items() if not k.startswith("lm_head.")}
        origin = megatron_folder(tmp_path / "t", state)
    seeds = {"a": 1, "b": 1, "c": 2}
    found = [imported(origin, name=n, seed=s).model.state_dict() for n, s in seeds.items()]
    name = "output_embedding.transform.weight"
    assert torch.equal(found[0][name], found[1][name])
    assert not torch.equal(found[0][name], found[2][name])
    report = json.loads((tmp_path / "a/report.json").read_text())
    assert report["output_head"] == "drawn from seed 1"
    assert any("no output head" in warning for warning in report["warnings"])


def test_the_pooler_is_kept_apart(tmp_path: Path, imported: Imported) -> None:
    imported(tape_folder(tmp_path / "t", tape_weights()))
    kept = load_file(tmp_path / "out/beside.safetensors")
    assert kept.keys() == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert any("head=sequence_tape_torch" in warning for warning in report["warnings"])


# -- nothing of a file is run


class LossScaler:
    def __init__(self) -> None:
        self.scale, self.window = 65536.0, {"steps": 1000}


class MaskType(enum.Enum):
    padding = 1


def test_what_megatron_keeps_beside_is_read_without_its_code(
    tmp_path: Path, imported: Imported
) -> None:
    names = ("megatron", "megatron.model", "megatron.model.enums", "fp16", "fp16.loss_scaler")
    modules = {name: types.ModuleType(name) for name in names}
    modules["megatron.model.enums"].MaskType = MaskType  # type: ignore[attr-defined]
    modules["fp16.loss_scaler"].LossScaler = LossScaler  # type: ignore[attr-defined]
    homes = LossScaler.__module__, MaskType.__module__
    LossScaler.__module__, MaskType.__module__ = "fp16.loss_scaler", "megatron.model.enums"
    sys.modules.update(modules)
    try:
        optimizer = {"loss_scaler": LossScaler(), "states": {0: torch.zeros(3)}}
        args = ARGS | {"mask": MaskType.padding}
        folder = megatron_folder(tmp_path / "m", plm_weights(), args=args, optimizer=optimizer)
    finally:
        LossScaler.__module__, MaskType.__module__ = homes
        for name in names:
            del sys.modules[name]
    found = answers(imported(folder))[0]
    assert np.abs(found - plm(plm_weights(), PLM_IDS)[0]).max() < 1e-5
    assert not any(name.split(".")[0] == "megatron" for name in sys.modules)


class Payload:
    def __init__(self, sign: Path):
        self.sign = sign

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.sign),)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, imported: Imported) -> None:
    sign = tmp_path / "was_run"
    folder = megatron_folder(tmp_path / "m", plm_weights(), optimizer=Payload(sign))
    with pytest.raises(UserError, match="nothing of it was run"):
        imported(folder)
    bare = tmp_path / "pytorch_model.bin"
    bare.write_bytes(pickle.dumps({"bert": Payload(sign)}))
    with pytest.raises(UserError, match=r"[Nn]othing of it was run"):
        imported(bare)
    assert not sign.exists()
    assert not (tmp_path / "out").exists()


# -- what is refused


def without(state: State, *ends: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(ends)}


WORDS = "bert.embeddings.word_embeddings.weight"
PLACES = "bert.embeddings.position_embeddings.weight"
TYPES = "bert.embeddings.token_type_embeddings.weight"


WRONG_TAPE = {
    "missing": (
        without(tape_weights(), "1.output.LayerNorm.bias"),
        r"lacks 1 tensors, bert\.encoder\.layer\.1\.output\.LayerNorm\.bias",
    ),
    "half a head": (without(tape_weights(), "mlm.bias"), r"lacks 1 tensors, mlm\.bias"),
    "left over": (tape_weights() | {"classify": torch.ones(2)}, "1 have no place, classify"),
    "many": (without(tape_weights(), ".bias"), "lacks 20 tensors, .* and 15 more"),
    "no layers": (
        {name: tensor for name, tensor in tape_weights().items() if ".layer." not in name},
        "lacks 1 tensors",
    ),
    "shape": (
        tape_weights() | {"mlm.transform.LayerNorm.bias": torch.ones(3)},
        r"output_embedding\.norm\.bias has shape \(3,\).*is \(16,\)",
    ),
    "query": (
        tape_weights() | {"bert.encoder.layer.1.attention.self.query.bias": torch.ones(3)},
        r"blocks\.1\.attention\.qkv\.bias has shape",
    ),
    "bias": (
        tape_weights() | {"mlm.bias": torch.ones(31)},
        r"output_embedding\.bias has shape \(31,\).*is \(30,\)",
    ),
    "vector": (without(tape_weights(), "decoder.weight") | {WORDS: torch.ones(30)}, "no matrices"),
    "types": (tape_weights() | {TYPES: torch.ones(2, 3)}, "cannot be added"),
    "untied": (
        tape_weights() | {"mlm.decoder.weight": torch.ones(30, D)},
        r"mlm\.decoder\.weight is not",
    ),
    "vocabulary": (
        without(tape_weights(), "decoder.weight") | {WORDS: torch.ones(26, D)},
        "26 rows; TAPE's iupac vocabulary has 30",
    ),
    "not finite": (tape_weights() | {PLACES: torch.full((P, D), math.nan)}, "not finite"),
    "another model": ({"blocks.0.weight": torch.ones(2)}, "neither ProteinLM's weights nor TAPE's"),
    "empty": ({}, "holds no weights"),
}


@pytest.mark.parametrize("case", WRONG_TAPE)
def test_what_is_not_a_whole_tape_model_is_refused_by_name(
    case: str, tmp_path: Path, imported: Imported
) -> None:
    state, message = WRONG_TAPE[case]
    path = tmp_path / "tape"
    path.mkdir()
    torch.save(state, path / "pytorch_model.bin")
    (path / "config.json").write_text('{"num_attention_heads": 4}')
    with pytest.raises(UserError, match=message):
        imported(path)
    assert not (tmp_path / "out").exists()


WRONG_SETTINGS = {
    "activation": ({"hidden_act": "swish"}, "hidden_act=swish; only hidden_act=gelu"),
    "layers": ({"num_hidden_layers": 12}, "says num_hidden_layers=12, its tensors say 2"),
    "heads": ({"num_attention_heads": 3}, "not a multiple of model.num_heads=3"),
    "no number": ({"layer_norm_eps": "${oc.env:HOME}"}, "which is no number"),
    "no heads": ({"num_attention_heads": "4"}, "num_attention_heads"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_settings_of_another_model_are_refused(
    case: str, tmp_path: Path, imported: Imported
) -> None:
    settings, message = WRONG_SETTINGS[case]
    folder = tape_folder(tmp_path / "t", tape_weights(), **settings)
    with pytest.raises(UserError, match=message):
        imported(folder)
    (folder / "config.json").write_text("[1")
    with pytest.raises(UserError, match="not readable JSON"):
        imported(folder)


WRONG_ARGS = {
    "gelu": ({"openai_gelu": True}, "openai_gelu=True"),
    "post": ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection"),
    "layers": ({"num_layers": 16}, "says num_layers=16, its tensors say 2"),
    "positions": ({"max_position_embeddings": 2176}, "says max_position_embeddings=2176"),
    "heads": ({"num_attention_heads": 5}, "not queries, keys and values of 5 heads"),
    "vocabulary": ({"make_vocab_size_divisible_by": 64}, "128 rows; ProteinLM's 31 tokens are padded to 64"),
    "no number": ({"layernorm_epsilon": "x"}, "which is no number"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ARGS)
def test_args_of_another_model_are_refused(case: str, tmp_path: Path, imported: Imported) -> None:
    changed, message = WRONG_ARGS[case]
    folder = megatron_folder(tmp_path / "m", plm_weights(), args=ARGS | changed)
    with pytest.raises(UserError, match=message):
        imported(folder)
    assert not (tmp_path / "out").exists()


def test_a_megatron_model_of_words_is_refused(tmp_path: Path, imported: Imported) -> None:
    state = drawn(plm_shapes(rows=30592), 0)
    args = ARGS | {"padded_vocab_size": 30592}
    with pytest.raises(UserError, match="30,592 rows; ProteinLM's 31 tokens are padded to 128"):
        imported(megatron_folder(tmp_path / "m", state, args=args))
    types_of_tokens = {"language_model.embedding.tokentype_embeddings.weight": torch.ones(2, D)}
    folder = megatron_folder(tmp_path / "n", plm_weights() | types_of_tokens)
    with pytest.raises(UserError, match=r"1 have no place, language_model\.embedding\.tokentype"):
        imported(folder)


@pytest.mark.parametrize("version", [4.0, "2.0", True])
def test_an_unknown_version_is_refused(version: Any, tmp_path: Path, imported: Imported) -> None:
    folder = megatron_folder(tmp_path / "m", plm_weights(), checkpoint_version=version)
    with pytest.raises(UserError, match=r"checkpoint_version=.* is not known.*Known: 0, 1, 2, 3"):
        imported(folder)
    with pytest.raises(UserError, match="Leave --checkpoint-version out"):
        imported(folder, version=2.0)


def test_ranks_that_do_not_go_together_are_refused(tmp_path: Path, imported: Imported) -> None:
    folder = megatron_folder(tmp_path / "m", plm_weights(), ranks=2)
    second = folder / "mp_rank_01/model_optim_rng.pt"
    content = torch.load(second, weights_only=False)
    inner = content["model"]["language_model"]["transformer"]
    inner["final_layernorm.weight"] = inner["final_layernorm.weight"] + 1
    torch.save(content, second)
    with pytest.raises(UserError, match=r"do not agree in .*final_layernorm\.weight"):
        imported(folder)
    inner.pop("final_layernorm.weight")
    torch.save(content, second)
    with pytest.raises(UserError, match="tensors of different names"):
        imported(folder)
    second.unlink()
    with pytest.raises(UserError, match=r"no mp_rank_01/model_optim_rng\.pt"):
        imported(folder)
    second.parent.rmdir()
    with pytest.raises(UserError, match="say that 2 ranks shared the model, and there are 1"):
        imported(folder)
    (folder / "mp_rank_00").rename(folder / "mp_rank_01")
    with pytest.raises(UserError, match="there is no mp_rank_00"):
        imported(folder)
    (folder / "mp_rank_01").rename(folder / "mp_rank_00_000")
    with pytest.raises(UserError, match=r"none of pytorch_model\.bin|pipeline stages"):
        imported(folder)


def test_the_wrong_layout_or_word_is_refused(tmp_path: Path, imported: Imported) -> None:
    folder = tape_folder(tmp_path / "t", tape_weights())
    with pytest.raises(UserError, match="is in the tape layout"):
        imported(folder, layout="megatron")
    with pytest.raises(UserError, match=r"--layout megatro: .*megatron"):
        imported(folder, layout="megatro")
    with pytest.raises(UserError, match=r"--final-ln off: .*apply"):
        imported(folder, final_ln="off")
    with pytest.raises(UserError, match="neither a final norm"):
        imported(folder, final_ln="literal")
    with pytest.raises(UserError, match="no such file"):
        imported(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"none of pytorch_model\.bin"):
        imported(tmp_path / "empty")
    imported(folder)
    with pytest.raises(UserError, match=r"holds best\.ckpt already"):
        imported(folder)
    with pytest.raises(UserError, match="no import is needed"):
        imported(tmp_path / "out/best.ckpt", name="again")


# -- back to TAPE, and on to other tasks


def test_tape_is_written_again_bit_for_bit(tmp_path: Path, imported: Imported) -> None:
    state = tape_weights()
    types_2D = state["bert.embeddings.token_type_embeddings.weight"]
    imported(tape_folder(tmp_path / "t", state))
    export_protein(str(tmp_path / "out"), tmp_path / "again")
    written = torch.load(tmp_path / "again/pytorch_model.bin", weights_only=True)
    assert written.keys() == state.keys()
    state[PLACES] = state[PLACES] + types_2D[0]
    state["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(1, D)
    for name, tensor in state.items():
        assert torch.equal(written[name], tensor), name
    settings = json.loads((tmp_path / "again/config.json").read_text())
    expected = {k: v for k, v in SETTINGS.items() if k != "finetuning_task"}
    assert {k: settings[k] for k in expected} == expected | {"type_vocab_size": 1}
    loaded = imported(tmp_path / "again", name="third")
    before, after = (read_checkpoint(tmp_path / name / "best.ckpt") for name in ("out", "third"))
    for name, tensor in before["state_dict"].items():
        assert torch.equal(after["state_dict"][name], tensor), name
    assert before["config"] == after["config"]
    assert before["tokenizer"] == after["tokenizer"] == loaded.tokenizer.state_dict()
    with pytest.raises(UserError, match="is there already"):
        export_protein(str(tmp_path / "out"), tmp_path / "again")


def test_what_tape_cannot_say_is_not_exported(tmp_path: Path, imported: Imported) -> None:
    imported(megatron_folder(tmp_path / "m", plm_weights()))
    with pytest.raises(UserError, match="has norm=pre; TAPE's layout means norm=post"):
        export_protein(str(tmp_path / "out"), tmp_path / "tape")
    assert not (tmp_path / "tape").exists()


def test_a_labelled_run_is_exported_without_its_head(tmp_path: Path, imported: Imported) -> None:
    imported(tape_folder(tmp_path / "t", tape_weights()))
    path = tmp_path / "out/best.ckpt"
    checkpoint = read_checkpoint(path)
    state = {k: v for k, v in checkpoint["state_dict"].items() if ".output_embedding." not in k}
    state["model.head.dense.weight"] = torch.ones(3, D)
    torch.save(checkpoint | {"state_dict": state}, path)
    report = export_protein(str(tmp_path / "out"), tmp_path / "tape")
    assert any("head has no place" in warning for warning in report.warnings)
    written = torch.load(tmp_path / "tape/pytorch_model.bin", weights_only=True)
    assert not any(name.startswith("mlm.") for name in written)
    assert torch.equal(written[WORDS], tape_weights()[WORDS])


@pytest.mark.parametrize("layout", ["megatron", "tape"])
def test_an_import_can_be_started_from(layout: str, tmp_path: Path, imported: Imported) -> None:
    make = megatron_folder if layout == "megatron" else tape_folder
    state = plm_weights() if layout == "megatron" else tape_weights()
    loaded = imported(make(tmp_path / "in", state))
    model = loaded.model
    assert model.output_embedding.weight is model.trunk.embedding.weight
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_weights(model, read_checkpoint(tmp_path / "out/best.ckpt"), loaded.tokenizer, "init_from=")
    assert all(p.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("layout", ["megatron", "tape"])
def test_proteins_of_a_fasta_file_are_embedded(
    layout: str, tmp_path: Path, imported: Imported
) -> None:
    make = megatron_folder if layout == "megatron" else tape_folder
    state = plm_weights() if layout == "megatron" else tape_weights()
    loaded = imported(make(tmp_path / "in", state))
    (tmp_path / "proteins.fasta").write_text(
        f">a\nMKV\nLAW\n>b\n{'A' * P}\n>c\nMK1\n>d\nACDEFGHIK\n"
    )
    output = tmp_path / "states.npz"
    result = run(
        tmp_path / "run", "task=embed", f"init_from={tmp_path / 'out'}",
        f"task.input={tmp_path / 'proteins.fasta'}", f"task.output={output}", "task.per_residue=true", "logger=none",
    )  # fmt: skip
    GlobalHydra.instance().clear()
    assert (result["metrics"]["rows/ok"], result["metrics"]["rows/not_ok"]) == (2, 2)
    with np.load(output) as file:
        found = [array for array in (file[name] for name in file.files) if array.shape[-1:] == (D,)]
    for sequence, states in zip(("MKVLAW", "ACDEFGHIK"), found, strict=True):
        tokens = torch.from_numpy(loaded.tokenizer.encode([sequence]).ids.astype(np.int64))
        with torch.inference_mode():
            expected = loaded.model(tokens[None]).hidden_BTD[0]
        assert states.shape == (len(sequence), D)
        assert np.abs(states - expected[1 : len(sequence) + 1].numpy()).max() < 1e-5


def test_a_safetensors_file_is_read(tmp_path: Path, imported: Imported) -> None:
    folder = tape_folder(tmp_path / "t", tape_weights())
    (folder / "pytorch_model.bin").unlink()
    save_file(tape_weights(), folder / "model.safetensors")
    assert np.abs(answers(imported(folder))[0] - tape(tape_weights(), TAPE_IDS)[0]).max() < 1e-5


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    path = ROOT / "experiments" / "convert_proteins.py"
    spec = importlib.util.spec_from_file_location("convert_proteins", path)
    assert spec
    assert spec.loader
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(sys, "argv", [path.name, *words])
    return program.main()


def test_the_command_imports_exports_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = tape_folder(tmp_path / "t", tape_weights())
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert command(monkeypatch, "import", str(origin), "--output", ours) == 0
    told = capsys.readouterr().out
    assert "norm post" in told
    assert f"init_from={ours}" in told.replace("\n", "")
    assert command(monkeypatch, "export", ours, "--output", theirs) == 0
    assert "the 30 of TAPE" in capsys.readouterr().out
    megatron = str(megatron_folder(tmp_path / "m", plm_weights()))
    assert command(monkeypatch, "import", megatron, "--output", str(tmp_path / "plm")) == 0
    assert "its [unused1] stands at <nterm>" in capsys.readouterr().out
    assert command(monkeypatch, "export", ours, "--output", theirs) == 2
    assert "is there already" in capsys.readouterr().err
