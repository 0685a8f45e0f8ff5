"""Nearest neighbours and singular values against NumPy; the callback in a real test run."""

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from lit_seqlm.callbacks.geometry import Geometry
from lit_seqlm.metrics import geometry
from lit_seqlm.plots import curves, embedding, read_history


def brute_force(weight: np.ndarray) -> np.ndarray:
    between = np.linalg.norm(weight[:, None] - weight[None], axis=-1)
    np.fill_diagonal(between, np.inf)
    return between.min(1)


@pytest.mark.parametrize("block", [7, 1000, 2**24])
def test_distances_are_those_of_brute_force_for_every_block_size(monkeypatch, block):
    monkeypatch.setattr(geometry, "BLOCK_ELEMENTS", block)
    weight = torch.randn(101, 16)
    found = geometry.nearest_neighbour_distances(weight).numpy()
    np.testing.assert_allclose(found, brute_force(weight.double().numpy()), rtol=1e-12)


def test_close_rows_far_from_the_origin_keep_their_distance():
    """Where |a|^2 + |b|^2 - 2ab alone would give 0 or worse."""
    weight = 1000 + torch.randn(50, 8)
    weight[1] = weight[0]
    weight[3, 0] = weight[2, 0] + 2**-7
    weight[3, 1:] = weight[2, 1:]
    found = geometry.nearest_neighbour_distances(weight)
    assert found[:2].tolist() == [0, 0]
    assert found[2:4].tolist() == pytest.approx([2**-7] * 2, rel=0.02)


def test_a_subset_of_rows_looks_at_the_whole_vocabulary():
    weight = torch.randn(60, 8)
    rows = geometry.evenly(60, 10)
    assert rows[0] == 0
    assert rows[-1] == 59
    assert len(rows.unique()) == 10
    whole = geometry.nearest_neighbour_distances(weight)
    assert torch.equal(geometry.nearest_neighbour_distances(weight, rows), whole[rows])
    assert torch.equal(geometry.evenly(5, 10), torch.arange(5))


@pytest.mark.parametrize("shape", [(300, 20), (5, 20)])
def test_singular_values_are_those_of_numpy(shape):
    weight = torch.randn(shape)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(geometry.singular_values(weight).numpy(), expected, rtol=1e-9)


def test_the_effective_rank_counts_equal_directions():
    assert geometry.effective_rank(torch.ones(7)) == pytest.approx(7)
    assert geometry.effective_rank(torch.tensor([3.0, 0.0, 0.0])) == pytest.approx(1)


def test_the_summary_of_a_square():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]) * 3
    near = geometry.nearest_neighbour_distances(weight)
    found = geometry.summarise(near, weight.norm(dim=1), geometry.singular_values(weight))
    side = 3 * 2**0.5
    assert found["nn_min"] == found["nn_median"] == pytest.approx(side)
    assert found["nn_relative_mean"] == pytest.approx(2**0.5)
    assert found["effective_rank"] == pytest.approx(2)
    assert found["top_singular_share"] == pytest.approx(0.5)


def test_one_row_has_no_neighbour():
    with pytest.raises(ValueError, match="no nearest neighbours"):
        geometry.nearest_neighbour_distances(torch.ones(1, 3))


class OnlyRows(lightning.LightningModule):
    """Nothing but an output embedding, and a test of one step."""

    def __init__(self, with_rows: bool):
        super().__init__()
        self.model = nn.Module()
        if with_rows:
            self.model.output_embedding = nn.Linear(4, 30)

    def test_step(self, batch, batch_idx):
        pass


@pytest.mark.parametrize("with_rows", [True, False])
def test_the_callback_logs_numbers_and_draws(tmp_path, with_rows):
    (tmp_path / "history.csv").write_text("epoch,lr,train/ppl,val/ppl\n1,20.0,9,8\n2,5.0,7,\n")
    trainer = lightning.Trainer(
        logger=False,
        callbacks=[Geometry(str(tmp_path), num_rows=1000)],
        accelerator="cpu",
        enable_progress_bar=False,
    )
    module = OnlyRows(with_rows)
    trainer.test(module, dataloaders=[torch.zeros(1)], verbose=False)
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if not with_rows:
        assert (drawn, logged) == (["curves.png"], {})
        return
    assert drawn == ["curves.png", "embedding.png"]
    expected = brute_force(module.model.output_embedding.weight.detach().double().numpy())
    assert logged["geometry/nn_mean"] == pytest.approx(expected.mean(), rel=1e-12)
    assert len(logged) == 8


def test_a_run_that_trained_nothing_draws_nothing(tmp_path):
    trainer = lightning.Trainer(
        logger=False,
        callbacks=[Geometry(str(tmp_path), num_rows=1000)],
        accelerator="cpu",
        enable_progress_bar=False,
    )
    trainer.test(OnlyRows(True), dataloaders=[torch.zeros(1)], verbose=False)
    assert not (tmp_path / "plots").exists()
    assert not trainer.callback_metrics


def test_figures_name_their_axes_and_runs(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,lr,train/ppl,val/ppl\n1,20.0,9,8\n2,5.0,7,\n")
    history = read_history(tmp_path / "history.csv")
    assert history["train/ppl"] == [9, 7]
    assert np.isnan(history["val/ppl"][1])
    quality, rate = curves({"plain": history, "adversarial": history}).axes
    labels = [text.get_text() for text in quality.get_legend().get_texts()]
    assert labels == ["plain, train", "plain, val", "adversarial, train", "adversarial, val"]
    assert (quality.get_ylabel(), rate.get_ylabel()) == ("perplexity", "learning rate")
    near, spectrum = embedding({"run": (torch.rand(9), torch.rand(3))}).axes
    assert near.get_xlabel() == "words, nearest first (%)"
    assert spectrum.get_ylabel() == "singular value"
