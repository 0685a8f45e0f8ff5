"""Records: what is written is read, growth loses nothing, broken files are refused."""

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_seqlm.cache.record import Record
from lit_seqlm.cache.record_writer import RecordWriter
from lit_seqlm.errors import UserError

SETTINGS = {
    "local": [{"theta": 0.3, "size": 500}, {"theta": 1.0, "size": 500}],
    "unigram/all": [{}],
}


def columns(num_tokens: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    local = -torch.rand(2, num_tokens, generator=generator)
    local[0, :2], local[1, 1:3] = torch.nan, -torch.inf
    return {
        "static": -torch.rand(num_tokens, generator=generator, dtype=torch.float64),
        "words": torch.randint(2**40, (num_tokens,), generator=generator),
        "local": local,
        "unigram/all": -torch.rand(1, num_tokens, generator=generator),
        "entropy": torch.rand(num_tokens, generator=generator),
    }


def append(writer: RecordWriter, all_columns: dict[str, torch.Tensor], part: slice) -> None:
    piece = {name: column[..., part] for name, column in all_columns.items()}
    writer.append(
        piece["static"],
        piece["words"],
        {name: piece[name] for name in SETTINGS},
        {"entropy": piece["entropy"]},
    )


def written(num_tokens: int = 50) -> Record:
    writer = RecordWriter(SETTINGS, ["entropy"])
    append(writer, columns(num_tokens), slice(None))
    return writer.record()


def assert_same(found: Record, expected: Record) -> None:
    for ours, theirs in (
        (found.static_N, expected.static_N),
        (found.words_N, expected.words_N),
        *((found.memories[name], expected.memories[name]) for name in expected.memories),
        *((found.features[name], expected.features[name]) for name in expected.features),
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert found.memories.keys() == expected.memories.keys()
    assert found.features.keys() == expected.features.keys()
    assert found.settings == expected.settings


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_what_is_appended_in_pieces_is_what_was_given(piece):
    given = columns(1000)
    writer = RecordWriter(SETTINGS, ["entropy"])
    for start in range(0, 1000, piece):
        append(writer, given, slice(start, start + piece))
    record = writer.record()
    assert len(record) == 1000
    assert record.static_N.dtype == np.float64
    assert record.memories["local"].dtype == record.features["entropy"].dtype == np.float32
    for found, name in (
        (record.static_N, "static"),
        (record.words_N, "words"),
        (record.memories["local"], "local"),
        (record.memories["unigram/all"], "unigram/all"),
        (record.features["entropy"], "entropy"),
    ):
        np.testing.assert_array_equal(found, given[name].numpy())


def test_growing_copies_little():
    """All copies together stay within a few times the end's size: no quadratic growth."""
    writer = RecordWriter(SETTINGS, ["entropy"])
    given, sizes = columns(4000), set()
    for start in range(4000):
        append(writer, given, slice(start, start + 1))
        sizes.add(writer.arrays["static"].size)
    assert sum(sizes) < 4 * 4000 * 1.5
    assert max(sizes) <= 4000 * 1.5


def test_a_record_taken_early_is_not_changed_by_what_comes_later():
    given = columns(100)
    writer = RecordWriter(SETTINGS, ["entropy"])
    append(writer, given, slice(0, 40))
    early = writer.record()
    before = early.memories["local"].copy()
    append(writer, given, slice(40, 100))
    np.testing.assert_array_equal(early.memories["local"], before)
    assert_same(writer.record().cut(0, 40), early)


def test_a_killed_pass_goes_on_from_its_state(tmp_path):
    given = columns(90)
    whole, first, second = (RecordWriter(SETTINGS, ["entropy"]) for _ in range(3))
    append(whole, given, slice(None))
    append(first, given, slice(0, 31))
    torch.save(first.state_dict(), tmp_path / "state")
    append(first, given, slice(31, 60))  # what the kill loses
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    append(second, given, slice(31, 90))
    assert_same(second.record(), whole.record())


def test_a_state_of_other_settings_is_refused():
    state = RecordWriter(SETTINGS, ["entropy"]).state_dict()
    for settings, features in (
        ({"local": [{}]}, ["entropy"]),
        (SETTINGS, []),
        (SETTINGS | {"local": [{}]}, ["entropy"]),
    ):
        with pytest.raises(UserError, match="other memories, settings or features"):
            RecordWriter(settings, features).load_state_dict(state)


def test_a_saved_record_is_read_back_bit_for_bit(tmp_path):
    path = tmp_path / "new" / "record.npz"
    for num_tokens in (0, 1, 50):
        record = written(num_tokens)
        record.save(path)
        assert_same(Record.load(path), record)
    assert os.listdir(path.parent) == ["record.npz"]


def test_a_missing_record_is_told(tmp_path):
    with pytest.raises(UserError, match="no record"):
        Record.load(tmp_path / "record.npz")


def test_broken_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "record.npz"
    written().save(path)
    good = path.read_bytes()
    changed = bytearray(good)
    changed[good.index(written().static_N.tobytes()) + 17] ^= 1
    foreign, unnamed = io.BytesIO(), io.BytesIO()
    np.savez(foreign, weights=np.zeros(3))
    np.savez(unnamed, header=np.frombuffer(b"[1, 2]", dtype=np.uint8))
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    contents = [good[:-30], good[: len(good) // 2], b"", b"text", bytes(changed)]
    contents += [foreign.getvalue(), unnamed.getvalue(), array.getvalue()]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"broken or is not a record"):
            Record.load(path)


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path):
    path = tmp_path / "record.npz"
    written().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"words": arrays["words"][:-1]}))
    with pytest.raises(UserError, match="broken"):
        Record.load(path)


def test_another_version_is_named(tmp_path):
    path = tmp_path / "record.npz"
    written().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes()) | {"version": 7}
    np.savez(path, **(arrays | {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}))
    with pytest.raises(UserError, match="version 7"):
        Record.load(path)


def test_a_full_disk_keeps_the_older_file_and_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "record.npz"
    written().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        written(60).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["record.npz"]


def test_a_model_that_gives_nan_is_told():
    with pytest.raises(UserError, match="1 of 2 targets"):
        Record(np.array([-1.0, np.nan]), np.zeros(2, dtype=np.int64), {}, {}, {})


def test_a_setting_is_found_by_its_values():
    record = written()
    assert record.row("local", {"theta": 1.0}) == 1
    assert record.row("local", {"theta": 0.3, "size": 500}) == 0
    assert record.row("unigram/all", {}) == 0
    for wanted, told in (({"theta": 0.5}, "0 of the 2"), ({"size": 500}, "2 of the 2")):
        with pytest.raises(UserError, match=told):
            record.row("local", wanted)
    with pytest.raises(UserError, match="Did you mean local"):
        record.row("locals", {})


def test_shapes_that_do_not_fit_are_our_mistake(tmp_path: Path):
    given = columns(10)
    writer = RecordWriter(SETTINGS, ["entropy"])
    with pytest.raises(AssertionError, match="memory/local"):
        writer.append(
            given["static"],
            given["words"],
            {"local": given["local"][:1], "unigram/all": given["unigram/all"]},
            {"entropy": given["entropy"]},
        )
