"""What property tasks keep and refuse: embeddings by their model, intervals by their rows, probes that diverge."""

# N = sequences, T = tokens, D = hidden size

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from lit_seqlm.config import CONF, build, register
from lit_seqlm.data.batch import Batch
from lit_seqlm.data.targets import plain_target
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import DivergedError, UserError
from lit_seqlm.head.gaussian import GaussianHead
from lit_seqlm.head.linear import LinearHead
from lit_seqlm.model.property import PropertyModel
from lit_seqlm.objective.classification import Classification
from lit_seqlm.task.embeddings import embed_split
from lit_seqlm.task.intervals import calibrated
from lit_seqlm.task.probe import Best
from lit_seqlm.task.property import PropertyTask

TOKENS = TokenTable.of(np.array(row, np.uint16) for row in ([0, 5, 6, 7, 1], [0, 8, 9, 5, 1]))


def model(*changes: str) -> PropertyModel:
    """The same weights whatever the options."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        chosen = ["model=linear_encoder_smoke", *[f"model.{change}" for change in changes]]
        cfg = compose("config", overrides=chosen)
    torch.manual_seed(0)
    encoder = build(cfg.model, vocab_size=20)

    def head(**sizes: int) -> Any:
        return LinearHead(**sizes, pooling="mean", dropout=0.0)

    return PropertyModel.on(encoder, head, "regression", 1, 0).eval()


def states(trained: PropertyModel, cache_dir: str | None) -> Tensor:
    tokens_NT, _ = TOKENS.pad(np.arange(2), 2)
    batch = Batch(tokens_NT, tokens_NT, rows_B=torch.arange(2))
    data: Any = SimpleNamespace(
        tables={"train": SimpleNamespace(tokens=TOKENS)}, exact_dataloader=lambda split: [batch]
    )
    return embed_split(trained, data, "train", cache_dir, torch.device("cpu"))


@pytest.mark.parametrize(
    "change", ["positions=none", "num_heads=4", "layer_norm_eps=0.1", "attention.guard_eps=1.0"]
)
def test_kept_embeddings_are_of_a_models_options_too(change: str, tmp_path: Path) -> None:
    """Equal weights run another way give other embeddings."""
    before = model()
    first = states(before, str(tmp_path))
    assert torch.equal(states(model(), str(tmp_path)), first)
    assert len(list(tmp_path.iterdir())) == 1
    changed = model(change)
    if change.startswith("num_heads"):  # omega has the size of a head
        changed = model("attention.kernel=elu_plus_one", change)
        first = states(model("attention.kernel=elu_plus_one"), str(tmp_path))
    found = states(changed, str(tmp_path))
    assert torch.equal(found, states(changed, None))
    assert (found - first).abs().max() > 1e-4


def test_embeddings_drawn_anew_are_not_kept(tmp_path: Path) -> None:
    states(model("attention.omega_policy=redraw_always"), str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_interval_needs_the_same_validation_rows(tmp_path: Path) -> None:
    """Rows are numbered within their split, so two splits may have the same numbers."""
    runs = []
    for seed in (1, 2):
        folder = tmp_path / f"seed_{seed}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "best.ckpt").touch()
        labels_NK = np.random.default_rng(seed).normal(size=(30, 1))
        np.savez(folder / "predictions.npz", targets=np.array(["gap"]), valid_rows=np.arange(30),
                 valid_predictions=labels_NK + 1, valid_labels=labels_NK)  # fmt: skip
        runs.append(str(folder))
    assert calibrated([runs[0]], ["gap"], 0.1, False).radius_K == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"seed_2 validated on other rows than .*seed_1"):
        calibrated(runs, ["gap"], 0.1, False)


def test_a_probe_that_diverges_says_so() -> None:
    with pytest.raises(DivergedError, match=r"task\.lr"):
        Best().offer(math.nan, 1, nn.Linear(2, 1))


def test_a_head_with_sigmas_is_refused_for_classes_before_anything_is_read(tmp_path: Path) -> None:
    encoder = SimpleNamespace(trunk=SimpleNamespace(hidden_size=8))
    head = partial(GaussianHead, pooling="mean", dropout=0.0)
    target = plain_target("toxic", "toxic", "")
    with pytest.raises(UserError, match="labels are classes, and the head predicts numbers"):
        PropertyTask(
            encoder, head, Classification(None), [target], "classification", [], str(tmp_path)
        )  # type: ignore[arg-type]
