"""Identity of a run, and the messages around it."""

import pytest

from lit_seqlm.config import numbers, run_folder
from lit_seqlm.errors import did_you_mean


def test_a_folder_is_name_and_seed() -> None:
    assert (
        run_folder("ptb_lstm", 3, ["experiment=ptb_lstm", "seed=3", "logger=wandb"])
        == "ptb_lstm/seed_3"
    )


def test_what_changes_numbers_changes_the_folder() -> None:
    folders = {
        run_folder("a", 1, overrides)
        for overrides in (
            [],
            ["model.dropout=0.1"],
            ["model.dropout=0.2"],
            ["data=ptb", "model.dropout=0.1"],
        )
    }
    assert len(folders) == 4


@pytest.mark.parametrize(
    "quiet",
    ["paths.output_dir=x", "resume=never", "tags=[a]", "trainer.devices=2", "hydra.verbose=true"],
)
def test_what_does_not_change_numbers_does_not(quiet: str) -> None:
    assert run_folder("a", 1, [quiet]) == "a/seed_1"


def test_the_order_of_overrides_does_not_matter() -> None:
    assert run_folder("a", 1, ["x=1", "y=2"]) == run_folder("a", 1, ["y=2", "x=1"])


@pytest.mark.parametrize(
    "origin",
    [
        "outputs/ptb_lstm/seed_1",
        "outputs/ptb_lstm/seed_1/",
        "outputs/ptb_lstm/seed_1/checkpoints/best.ckpt",
    ],
)
def test_an_evaluation_is_named_after_what_it_evaluates(origin: str) -> None:
    folder = run_folder("demo", 1, ["task=evaluate", f"init_from={origin}"])
    assert folder.startswith("ptb_lstm_evaluate/seed_1-")


def test_places_are_not_numbers() -> None:
    from omegaconf import OmegaConf

    cfg = OmegaConf.create(
        {"data": {"source": {"data_dir": "a", "name": "ptb"}}, "logger": {"x": 1}, "seed": 1}
    )
    assert numbers(cfg)["data.source.name"] == "ptb"
    assert "data.source.data_dir" not in numbers(cfg)
    assert not any(key.startswith("logger") for key in numbers(cfg))


def test_the_nearest_name_is_offered() -> None:
    assert (
        did_you_mean("hiden_size", ["hidden_size", "dropout"])
        == "Did you mean hidden_size? Accepted: dropout, hidden_size."
    )
    assert did_you_mean("zzz", ["a", "b"]) == "Accepted: a, b."
