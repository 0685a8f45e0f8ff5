"""Checkpoints are whole or absent, plain, and refuse what does not fit."""

import errno
import re
from pathlib import Path

import pytest
import torch

from lit_seqlm.checkpoint import (
    AtomicCheckpointIO,
    find_checkpoint,
    load,
    load_weights,
    read_checkpoint,
    resumable,
)
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.word import WordTokenizer


def content(**more: object) -> dict:
    return {
        "state_dict": {"model.weight": torch.ones(2, 3), "model.bias": torch.zeros(2)},
        "config": {},
    } | more


def tokenizer(*words: str) -> WordTokenizer:
    return WordTokenizer(lowercase=False, max_size=None, min_count=1, vocabulary=list(words))


def test_the_older_file_is_kept_beside_the_newer(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint(content(epoch=1), tmp_path / "last.ckpt")
    io.save_checkpoint(content(epoch=2), tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 2
    assert read_checkpoint(tmp_path / "previous.ckpt")["epoch"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_a_full_disk_leaves_the_older_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint(content(epoch=1), tmp_path / "last.ckpt")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"No space left.*one before it is kept; make room"):
        io.save_checkpoint(content(epoch=2), tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"], "no half-written file is left"


@pytest.mark.parametrize(
    "damage", [b"", b"not a checkpoint", None], ids=["empty", "text", "truncated"]
)
def test_a_damaged_file_is_one_message(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(content(), path)
    path.write_bytes(path.read_bytes()[:400] if damage is None else damage)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save(content(task=torch.nn.Linear(1, 1)), tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "evil.ckpt")


def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(1)}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="no weights or no config"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_resuming_skips_damaged_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert resumable(tmp_path) is None
    torch.save(content(), tmp_path / "previous.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"cut")
    (tmp_path / ".last.ckpt.123").write_bytes(b"half")
    assert resumable(tmp_path) == tmp_path / "previous.ckpt"
    assert "Falling back" in caplog.text
    assert not (tmp_path / ".last.ckpt.123").exists()


def test_a_missing_origin_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"init_from=.*nowhere: no checkpoint there"):
        find_checkpoint(str(tmp_path / "nowhere"))


def test_weights_are_loaded_strictly() -> None:
    model = torch.nn.Linear(3, 2)
    load_weights(model, content(tokenizer={"vocabulary": ["a", "b"]}), tokenizer("a", "b"), "run")
    assert torch.equal(model.weight, torch.ones(2, 3))
    with pytest.raises(UserError, match=r"other shapes for \['weight'\]"):
        load_weights(torch.nn.Linear(4, 2), content(tokenizer={}), tokenizer("a"), "run")
    with pytest.raises(UserError, match=r"has no place for \['bias'\]"):
        load_weights(
            torch.nn.Linear(3, 2, bias=False), content(tokenizer={}), tokenizer("a"), "run"
        )


def test_another_vocabulary_does_not_fit() -> None:
    with pytest.raises(UserError, match="its vocabulary of 2 tokens is not this run's, of 3"):
        load_weights(
            torch.nn.Linear(3, 2),
            content(tokenizer={"vocabulary": ["a", "b"]}),
            tokenizer("a", "b", "c"),
            "run",
        )


@pytest.mark.parametrize(
    "name", ["numpy.load", "lit_seqlm.checkpoint.os.system", "lit_seqlm.results.write_atomically"]
)
def test_a_config_in_a_checkpoint_names_no_other_code(tmp_path: Path, name: str) -> None:
    """What a file asks to be built is built by this program's classes or not at all."""
    victim = {"_target_": name, "path": str(tmp_path / "made"), "text": "run"}
    config = {"data": {"tokenizer": {"_target_": "lit_seqlm.none", "inner": [victim]}}, "model": {}}
    torch.save({"state_dict": {}, "config": config, "tokenizer": {}}, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match=rf"names {re.escape(name)}, which is no class of this"):
        load(tmp_path)
    assert not (tmp_path / "made").exists()
