"""Kept neighbours, weighed again, say what the memory said; and what is no log is refused."""

# N = tokens, S = settings

import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import sweep_cache
from lit_seqlm.cache.kernel_sweep import KernelSweep, what_counts
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.cache.neighbour_log import NeighbourLog
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError
from tests.unit.test_cache import N, knn, store, stream, unbounded
from tests.unit.test_evaluate import evaluate

KEPT = 24
GRID: dict[str, Any] = {"k": [3, 24], "bandwidth_scale": [0.5, 1.5], "theta": [0.5, 2.0]}
L2 = {**GRID, "kernel": ["gaussian", "epanechnikov", "rbf"], "bandwidth": ["kth", "fixed"]}
MEMORIES = {
    "l2": lambda: unbounded(grid=L2),
    "dot": lambda: unbounded(kernel="dot", store=store(metric="dot"), grid={**GRID, "theta": [0.0, 2.0]}),
    "lists": lambda: unbounded(grid=L2, store=store(kind="ivf_flat", num_probes=1)),
    "few kept": lambda: unbounded(grid=L2, store=store(capacity=20, evict="fifo")),
    "training": lambda: knn(grid=L2),
}  # fmt: skip


def kept(
    folder: Path, memory: NearestMemory, name: str = "valid.near", num: int = N
) -> tuple[NeighbourLog, Record]:
    """A stream read by a memory that writes down its neighbours, in pieces of 37 tokens."""
    hidden_ND, words_N = stream()
    static_N = torch.full((num,), math.log(1 / 6))
    log = NeighbourLog(folder / "records", name)
    log.create(num, KEPT, memory.metric, 0)
    memory.listener = log.append
    parts = [
        memory.step(
            *(part[start : min(start + 37, num)] for part in (hidden_ND, words_N, static_N))
        )
        for start in range(0, num, 37)
    ]
    found_SN = torch.cat([scores.log_prob_SN for scores in parts], dim=1).numpy()
    own = ({"near": found_SN}, {"near": memory.settings})
    record = Record(static_N.double().numpy(), words_N[:num].numpy(), *own, {})
    record.save(folder / "records" / f"{name.partition('.')[0]}.npz")
    return log, record


@pytest.mark.parametrize("kind", MEMORIES)
def test_what_was_kept_says_what_the_memory_said(tmp_path: Path, kind: str) -> None:
    log, record = kept(tmp_path, MEMORIES[kind]())
    again_SN = log.weigh(
        [{**one, "k": min(one["k"], log.kept(N))} for one in record.settings["near"]], N
    )
    memory_SN = record.memories["near"]
    assert len(again_SN) == len(memory_SN)
    assert np.isfinite(memory_SN).any()
    np.testing.assert_allclose(np.exp(again_SN), np.exp(memory_SN), atol=1e-6)
    assert (np.isnan(again_SN) == np.isnan(memory_SN)).all()


def test_an_evaluation_keeps_them_beside_its_record(tmp_path: Path) -> None:
    grid = {"k": [4, 16], "kernel": ["gaussian", "epanechnikov"]}
    evaluate(tmp_path, unbounded(grid=grid), keep_neighbours=16)
    record = Record.load(tmp_path / "records/valid.npz")
    settings = record.settings["unbounded"]
    log = NeighbourLog(tmp_path / "records", "valid.unbounded")
    again_SN = log.weigh(settings, len(record))
    np.testing.assert_allclose(np.exp(again_SN), np.exp(record.memories["unbounded"]), atol=1e-6)


def test_an_interrupted_reading_goes_on_to_the_same_files(tmp_path: Path) -> None:
    hidden_ND, words_N = stream()
    static_N = torch.zeros(N)
    logs = []
    for name, cuts in (("whole", [0, N]), ("resumed", [0, 110, N])):
        memory, log = unbounded(k=KEPT), NeighbourLog(tmp_path, name)
        for start, stop in pairwise(cuts):
            log.create(N, KEPT, "l2", start)
            memory.listener = log.append
            rows = slice(start, stop)
            memory.step(hidden_ND[rows], words_N[rows], static_N[rows])
            if stop < N:  # read on after the last save, then killed
                log.append(torch.zeros(9, KEPT), torch.ones(9, KEPT, dtype=torch.bool))
        log.check(N)
        logs.append(log)
    assert logs[0].matches.read_bytes() == logs[1].matches.read_bytes()
    first, second = (np.fromfile(log.measures, "<f4") for log in logs)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_what_was_read_before_an_interruption_must_be_there(tmp_path: Path) -> None:
    log, _ = kept(tmp_path, unbounded())
    with pytest.raises(UserError, match="kept 24 neighbours by l2, not 8 by l2"):
        log.create(N, 8, "l2", 100)
    with pytest.raises(UserError, match="does not hold the 301 tokens"):
        log.create(N + 1, KEPT, "l2", N + 1)
    log.matches.unlink()
    with pytest.raises(UserError, match="resume=never"):
        log.create(N, KEPT, "l2", 100)


def test_more_neighbours_than_were_kept_are_refused(tmp_path: Path) -> None:
    log, record = kept(tmp_path, unbounded(k=50))
    setting = record.settings["near"][0]
    for k in (25, None, 0):
        with pytest.raises(UserError, match="24 neighbours"):
            log.weigh([{**setting, "k": k}], N)


def test_a_memory_that_looked_for_fewer_kept_fewer(tmp_path: Path) -> None:
    """A test split is read with the chosen k alone: more columns than that hold nothing."""
    log, record = kept(tmp_path, unbounded(k=5))
    assert log.kept(N) == 5
    with pytest.raises(UserError, match=r"k=9: 5 neighbours of valid\.near were kept"):
        log.weigh([{**record.settings["near"][0], "k": 9}], N)
    short, _ = kept(tmp_path, unbounded(k=KEPT), num=7)
    assert short.kept(7) == KEPT, "there were no more than 7 states to find"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": "dot"}, "serves gaussian, epanechnikov, rbf"),
        ({"kernel": "gausian"}, "choose one of"),
        ({"theta": 0.0}, "a width is above 0"),
        ({"bandwidth_scale": -1.0}, "a width is above 0"),
    ],
)
def test_a_setting_that_the_memory_would_refuse_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    log, record = kept(tmp_path, unbounded())
    with pytest.raises(UserError, match=said):
        log.weigh([{**record.settings["near"][0], **change}], N)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    log, record = kept(tmp_path, unbounded())
    settings = record.settings["near"]
    with pytest.raises(UserError, match="does not belong to the record beside it, of 299 tokens"):
        log.weigh(settings, N - 1)
    log.measures.write_bytes(log.measures.read_bytes()[:-4])
    with pytest.raises(UserError, match="bytes"):
        log.weigh(settings, N)
    log.measures.unlink()
    with pytest.raises(UserError, match=r"valid\.near\.measures is missing"):
        log.weigh(settings, N)
    for text, said in (("{", "is broken"), ('{"x": 1}', "another file"), ("[]", "another file")):
        log.about.write_text(text)
        with pytest.raises(UserError, match=said):
            log.weigh(settings, N)
    log.about.unlink()
    with pytest.raises(UserError, match=r"Evaluate with task\.keep_neighbours"):
        log.weigh(settings, N)


def test_a_full_disk_is_told_before_and_while_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = NeighbourLog(tmp_path, "valid.near")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
        with pytest.raises(UserError, match=r"no room .*477 MB are needed.*keep_neighbours"):
            log.create(10**6, 100, "l2", 0)
    log.create(N, 4, "l2", 0)
    if not Path("/dev/full").exists():
        pytest.skip("the rest needs /dev/full, which Linux has")
    log.measures = Path("/dev/full")
    with pytest.raises(UserError, match=r"no room .*No space left"):
        log.append(torch.zeros(5, 4), torch.zeros(5, 4, dtype=torch.bool))
    assert log.row == 0


def test_a_sweep_finds_what_a_memory_with_that_grid_finds(tmp_path: Path) -> None:
    grid = {"k": [3, 24], "kernel": ["gaussian", "epanechnikov"], "bandwidth_scale": [0.5, 1.5]}
    kept(tmp_path / "narrow", unbounded(k=KEPT))
    _, wide = kept(tmp_path / "wide", unbounded(grid=grid))
    tried = KernelSweep(tmp_path / "narrow", None).run(grid)
    assert [one.nll for one in tried] == sorted(one.nll for one in tried)
    assert len(tried) == 8
    for one in tried:
        memory_N = wide.memories["near"][wide.settings["near"].index(one.setting)].astype(float)
        mixed_N = np.log1p(one.lam * (6 * np.exp(memory_N) - 1)) - math.log(6)
        assert one.nll == pytest.approx(-np.where(np.isnan(memory_N), -math.log(6), mixed_N).mean())


def test_settings_that_a_kernel_cannot_tell_apart_are_tried_once(tmp_path: Path) -> None:
    kept(tmp_path, unbounded(k=KEPT))
    grid = {**L2, "k": [24]}
    settings = KernelSweep(tmp_path, "near").settings(grid)
    assert len(settings) == 2 * (2 + 2) + 2, "two kernels with two widths of each kind; rbf's theta"
    assert {what_counts(one)[-1] for one in settings} == {"bandwidth_scale", "theta"}


def test_the_best_is_scored_on_test_with_the_weight_of_validation(tmp_path: Path) -> None:
    kept(tmp_path, unbounded(k=KEPT))
    _, record = kept(tmp_path, unbounded(k=KEPT), "test.near")
    sweep = KernelSweep(tmp_path, "near")
    best = sweep.run({})[0]
    static, ppl = sweep.test(best)
    assert static == pytest.approx(6)
    assert ppl == pytest.approx(best.ppl), "the same stream stands in for both"
    record = Record.load(tmp_path / "records/test.npz")
    record.cut(0, 100).save(tmp_path / "records/test.npz")
    with pytest.raises(UserError, match="does not belong"):
        sweep.test(best)


def test_the_command_prints_a_table_and_tells_of_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, unbounded(k=KEPT))

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sweep_cache.py", str(tmp_path), *words])
        return (sweep_cache.main(), *capsys.readouterr())

    status, shown, _ = command("k=3,24", "kernel=gaussian,rbf", "theta=0.5,1")
    assert status == 0
    assert "6 settings on 300 tokens" in shown
    assert "Nothing was chosen on test" in shown
    for words, said in (
        (("k=25",), "k=25: 24 neighbours"),
        (("kernel=gausian",), "Did you mean gaussian?"),
        (("bandwith=kth",), "Did you mean bandwidth?"),
        (("k=3.5",), "k takes whole numbers"),
        (("k",), "say OPTION=VALUE"),
        (("k=3", "k=4"), "stands there twice"),
        (("--memory", "neer"), "Did you mean near?"),
        (("--test",), "there is no record"),
    ):
        status, _, told = command(*words)
        assert (status, told.count("\n")) == (2, 1), words
        assert said in told
