"""Evaluation with memories: one pass, what is tuned on what, and readings that were interrupted."""

# N = predictions

import math
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from lit_seqlm.cache.dynamic import DynamicEvaluation
from lit_seqlm.cache.knn import KNNStore
from lit_seqlm.cache.mixing.strategies import MixingOptions
from lit_seqlm.cache.mixture import Mixture
from lit_seqlm.cache.none import NoCache
from lit_seqlm.cache.record import Record
from lit_seqlm.data.stream import FixedSegments
from lit_seqlm.data.synthetic import SyntheticText
from lit_seqlm.data.text import TextData
from lit_seqlm.errors import UserError
from lit_seqlm.model.decoder import Decoder
from lit_seqlm.model.layers.attention import Context
from lit_seqlm.model.lstm import LSTMLanguageModel
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.task import progress
from lit_seqlm.task.evaluate import Evaluate
from lit_seqlm.task.stream_pass import StreamPass
from lit_seqlm.tokenizer.word import WordTokenizer
from tests.unit.test_cache import knn, local, store, unbounded

WORDS = 20


def text(**options: Any) -> TextData:
    given: dict[str, Any] = {
        "source": SyntheticText(WORDS, 3000, 3, 0), "tokenizer": WordTokenizer(False, None, 1),
        "segments": FixedSegments(16), "batch_size": 4, "eval_batch_size": 4, "eval_seq_len": 16, "eval_stride": None,
        "shuffle": "none", "seed": 0,
    }  # fmt: skip
    data = TextData(**{**given, **options})
    data.prepare_data()
    data.setup()
    return data


def task(folder: Path, cache: Any, **options: Any) -> Evaluate:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "model": LSTMLanguageModel(WORDS + 1, 8, 1, 0.0, "tied", 0.5, None),
        "objective": CausalLM(0.0, "fused"), "regularizer": NoRegularizer(), "unknown_id": None, "cache": cache,
        "weights": "tuned", "key": "output", "new_words": "unknown", "num_words": None, "keep_neighbours": None,
        "every_seconds": 1e9, "folder": str(folder),
        "mixing": lambda lam: MixingOptions(lam, step=0.1, max_experts=50, start_count=10.0, penalty=1e-3),
    }  # fmt: skip
    return Evaluate(**{**given, **options})


def trainer() -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )


def evaluate(
    folder: Path, cache: Any, data: TextData | None = None, **options: Any
) -> dict[str, float]:
    return task(folder, cache, **options).run(trainer(), data or text(), None)


def memories() -> Mixture:
    """One of every kind; the index is trained within the stream."""
    grid = {"theta": [0.5, 2.0], "size": [10, 50]}
    lists = unbounded(store=store(kind="ivf_flat", num_probes=2))
    return Mixture(
        {"near": local(grid=grid), "far": lists, "training": knn(), "weights": dynamic()}
    )


def dynamic(lr: float = 1e-3) -> DynamicEvaluation:
    return DynamicEvaluation("rms", "mean", lr, 1e-3, 1e-5, 5, 4, 10)


def model_alone(data: TextData, split: str) -> float:
    """The model's mean nll over a split in one forward pass."""
    torch.manual_seed(0)
    model = LSTMLanguageModel(WORDS + 1, 8, 1, 0.0, "tied", 0.5, None).eval()
    stream_N = data.streams[split].long()
    with torch.no_grad():
        log_prob_NV = model.output_embedding.log_prob(model(stream_N[None, :-1]).hidden_BTD[0])
    return float(-log_prob_NV.gather(1, stream_N[1:, None]).double().mean())


def test_without_a_cache_the_model_alone_is_scored(tmp_path: Path) -> None:
    data = text()
    metrics = evaluate(tmp_path, NoCache(), data)
    for stage, split in (("val", "valid"), ("test", "test")):
        assert metrics[f"{stage}/nll"] == pytest.approx(model_alone(data, split), abs=1e-6)
        assert metrics[f"{stage}/tokens"] == len(data.streams[split]) - 1
        assert metrics[f"{stage}/ppl"] == pytest.approx(math.exp(metrics[f"{stage}/nll"]))


def test_weights_of_zero_leave_the_static_model_bit_for_bit(tmp_path: Path) -> None:
    """With the same kernels: oneDNN has one for LSTMs that is used on some CPUs, and without gradients only."""
    with torch.backends.mkldnn.flags(enabled=False):
        static = evaluate(tmp_path / "a", NoCache())
        found = evaluate(tmp_path / "b", local(lam=0.0), weights="fixed")
        adapter = DynamicEvaluation("rms", "mean", 0.0, 0.0, 1e-5, 16, 4, 2)
        still = evaluate(tmp_path / "c", adapter)
    assert found["test/nll"] == static["test/nll"]
    assert still["test/nll"] == static["test/nll"]


def test_a_reading_is_one_setting_of_each_memory_chosen_on_validation(tmp_path: Path) -> None:
    evaluation = task(tmp_path, memories())
    metrics = evaluation.run(trainer(), text(), None)
    valid, test = (Record.load(tmp_path / f"records/{split}.npz") for split in ("valid", "test"))
    assert valid.memories["near"].shape[0] == 4
    assert test.memories["near"].shape[0] == 1
    card = evaluation.card
    tried = [entry for entry in card["tried_on_validation"] if entry["memory"] == "near"]
    best = min(tried, key=lambda entry: entry["nll"])
    assert card["settings"]["near"] == test.settings["near"][0] == best["setting"]
    lam = card["weights"]["near"]["lam"]["near"]
    mixed_N = np.logaddexp(np.log1p(-lam) + test.static_N, np.log(lam) + _given(test, "near"))
    assert metrics["test/ppl_near"] == pytest.approx(math.exp(-mixed_N.mean()), rel=1e-9)
    assert (
        metrics["val/ppl"]
        <= min(metrics[f"val/ppl_{name}"] for name in ("dynamic", "near", "far")) + 1e-9
    )
    for name in ("near", "far", "training"):
        assert metrics["test/change_" + name] == pytest.approx(
            100 * (metrics[f"test/ppl_{name}"] / metrics["test/ppl_dynamic"] - 1)
        )


def _given(record: Record, name: str) -> np.ndarray:
    log_prob_N = record.memories[name][0].astype(np.float64)
    return np.where(np.isnan(log_prob_N), record.static_N, log_prob_N)


@pytest.mark.parametrize("weights", ["fixed", "tuned", "online", "em", "gate"])
def test_every_way_to_weigh_runs(weights: str, tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, Mixture({"near": local(), "far": unbounded()}), weights=weights)
    assert math.isfinite(metrics["test/ppl"])
    assert metrics["test/ppl"] != metrics["test/ppl_static"]


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("batches", [1, 7])
def test_an_interrupted_reading_goes_on_to_the_same_bits(
    split: str, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "WORTH", 0)  # save after every batch
    whole = evaluate(tmp_path / "whole", memories(), every_seconds=0)
    remember = StreamPass.remember
    left = {split: batches}

    def stop(self: StreamPass, *args: Any) -> None:
        left[self.reading.split] = left.get(self.reading.split, 1000) - 1
        if left[self.reading.split] < 0:
            raise RuntimeError("killed")
        remember(self, *args)

    monkeypatch.setattr(StreamPass, "remember", stop)
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(tmp_path / "cut", memories(), every_seconds=0)
    monkeypatch.setattr(StreamPass, "remember", remember)
    assert (tmp_path / "cut/reading.ckpt").exists() == (
        batches > 3
    )  # four pieces a batch are one save
    assert evaluate(tmp_path / "cut", memories(), every_seconds=0) == whole
    for name in ("valid", "test"):
        cut, uncut = (
            Record.load(tmp_path / f"{run}/records/{name}.npz") for run in ("cut", "whole")
        )
        np.testing.assert_array_equal(cut.static_N, uncut.static_N)
        for memory in uncut.memories:
            np.testing.assert_array_equal(cut.memories[memory], uncut.memories[memory])
    assert not (tmp_path / "cut/reading.ckpt").exists()


def test_a_damaged_save_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("reading.ckpt").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"reading\.ckpt"):
        evaluate(tmp_path, local())


def test_dynamic_evaluation_adapts_and_gives_the_weights_back(tmp_path: Path) -> None:
    static = evaluate(tmp_path / "a", NoCache())
    evaluation = task(tmp_path / "b", dynamic(lr=1e-2))
    before = {name: weight.clone() for name, weight in evaluation.model.state_dict().items()}
    metrics = evaluation.run(trainer(), text(), None)
    assert metrics["test/nll"] < static["test/nll"] - 0.02
    for name, weight in evaluation.model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_overlapping_windows_are_one_stream(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Decoder(WORDS + 1, 8, 1, 2, 16, "rotary", "gelu", 0.0, 0.0, 0.0, "tied", None, 0.0)
    data = text(eval_stride=4)
    metrics = evaluate(tmp_path, Mixture({"near": local(), "training": knn()}), data, model=model)
    assert metrics["test/tokens"] == len(data.streams["test"]) - 1
    assert metrics["test/ppl_near"] < metrics["test/ppl_static"]


def test_dynamic_evaluation_reads_windows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Decoder(WORDS + 1, 8, 1, 2, 16, "rotary", "gelu", 0.0, 0.0, 0.0, "tied", None, 0.0)
    data = text(eval_stride=4)
    adapted = evaluate(tmp_path / "a", dynamic(lr=1e-2), data, model=model)
    assert adapted["test/nll"] < evaluate(tmp_path / "b", NoCache(), data, model=model)["test/nll"]


def test_a_kept_store_of_another_key_is_refused(tmp_path: Path) -> None:
    def run(key: str) -> None:
        torch.manual_seed(0)
        model = Decoder(WORDS + 1, 8, 1, 2, 16, "rotary", "gelu", 0.0, 0.0, 0.0, "tied", None, 0.0)
        memory = KNNStore(
            0.1, 5, "rbf", "fixed", 1.0, 1.0, "none", store(), 500, str(tmp_path / "store"), {}
        )
        evaluate(tmp_path / key, memory, text(eval_stride=4), model=model, key=key)

    run("output")
    run("output")
    with pytest.raises(UserError, match=r"store\.memory"):
        run("ffn_input")


@pytest.mark.parametrize("how", ["pca", "l2"])
def test_a_store_of_a_short_text_is_whole(how: str, tmp_path: Path) -> None:
    data = text()
    memory = KNNStore(0.1, 5, "rbf", "fixed", 1.0, 1.0, how, store(), None, None, {})
    evaluate(tmp_path, memory, data)
    length = len(data.streams["train"])
    assert len(memory.store) == 10 * (length // 10 - 1)


def test_mistakes_are_told_before_anything_is_read(tmp_path: Path) -> None:
    for options, message in (
        ({"new_words": "new"}, "unknown, uniform, character"),
        ({"num_words": 5}, "task.new_words=uniform alone"),
        (
            {"weights": "fixed", "cache": Mixture({"a": local(lam=0.9), "b": local(lam=0.9)})},
            "sum to 1.8",
        ),
    ):
        with pytest.raises(UserError, match=message):
            task(tmp_path, options.pop("cache", local()), **options)


def test_an_unknown_word_for_new_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown, uniform, character"):
        evaluate(tmp_path, local(), new_words="new")
    with pytest.raises(UserError, match="Did you mean tuned"):
        evaluate(tmp_path, local(), weights="tunned")


@pytest.mark.parametrize("key", ["output", "embedding", "ffn_input"])
def test_memories_compare_the_state_that_is_asked_for(key: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Decoder(WORDS + 1, 8, 1, 2, 16, "rotary", "gelu", 0.0, 0.0, 0.0, "tied", None, 0.0)
    seen: list[torch.Tensor] = []
    near = local()
    near.step, step = lambda *args: (seen.append(args[0]), step(*args))[1], near.step  # type: ignore[method-assign]
    data = text(eval_stride=4)
    evaluate(tmp_path, near, data, model=model, key=key)
    tokens_BT = data.streams["valid"][None, :16].long()
    with torch.no_grad():
        embedded = model.eval().embed(tokens_BT, torch.arange(16))
        block = model.blocks[0]
        rotation = model.positions.rotation(torch.arange(16), torch.float32)
        attended = embedded + block.attention(block.attention_norm(embedded), rotation, Context())
        expected = {
            "output": model(tokens_BT).raw_BTD,
            "embedding": model.embedding(tokens_BT),
            "ffn_input": block.feed_forward_norm(attended),
        }[key]
    torch.testing.assert_close(seen[0][:16], expected[0])


def test_a_key_that_a_model_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.key=ffn_input.*output"):
        evaluate(tmp_path, local(), key="ffn_input")


def test_an_interrupted_reading_of_windows_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "WORTH", 0)

    def run(folder: str) -> dict[str, float]:
        torch.manual_seed(0)
        model = Decoder(WORDS + 1, 8, 1, 2, 16, "rotary", "gelu", 0.0, 0.0, 0.0, "tied", None, 0.0)
        return evaluate(
            tmp_path / folder, local(), text(eval_stride=4), model=model, every_seconds=0
        )

    whole, remember, left = run("whole"), StreamPass.remember, [5]

    def stop(self: StreamPass, *args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("killed")
        remember(self, *args)

    monkeypatch.setattr(StreamPass, "remember", stop)
    with pytest.raises(RuntimeError, match="killed"):
        run("cut")
    monkeypatch.setattr(StreamPass, "remember", remember)
    assert (tmp_path / "cut/reading.ckpt").exists()
    assert run("cut") == whole


def test_a_part_of_a_text_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it ends is counted from its beginning, so an interrupted one leaves nothing to go on from."""
    monkeypatch.setattr(progress, "WORTH", 0)
    part = trainer()
    part.limit_test_batches = 5
    evaluation = task(tmp_path, local(), every_seconds=0)
    metrics = evaluation.run(part, text(), None)
    assert metrics["val/tokens"] == metrics["test/tokens"] == 5 * 16
    assert not (tmp_path / "reading.ckpt").exists()


def test_neighbours_are_kept_by_what_searches_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unbounded"):
        task(tmp_path, local(), keep_neighbours=64)
