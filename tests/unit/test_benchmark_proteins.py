"""What the protein benchmark compares is comparable, and what it says of shards is measured."""

import importlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lit_seqlm.data.batch import Batch
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"
ONLY_LINUX = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peaks of memory are read from Linux's /proc"
)


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    """The benchmark's files, which are imported as scripts of one folder import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = {
            "proteins": "proteins",
            "models": "protein_models",
            "shards": "protein_shards",
            "encoders": "encoders",
        }
        yield SimpleNamespace(**{name: importlib.import_module(of) for name, of in names.items()})


@pytest.fixture
def models(modules: SimpleNamespace) -> ModuleType:
    return modules.models


@pytest.fixture
def shards(modules: SimpleNamespace) -> ModuleType:
    return modules.shards


def made_table(number: int) -> TokenTable:
    """Proteins of many lengths, each behind <cls>."""
    rng = np.random.default_rng(3)
    lengths = np.exp(4.5 + 0.6 * rng.standard_normal(number)).astype(int).clip(5, 500)
    rows = [np.concatenate([[2], rng.integers(5, 30, length)]) for length in lengths]
    return TokenTable.of([row.astype(np.uint16) for row in rows])


def sequences(batch: Batch) -> list[tuple[int, ...]]:
    """What a batch's targets are of, without padding and in a known order."""
    parts = []
    for row, targets_T in enumerate(batch.targets_BT):
        if batch.segments_BT is not None:
            sizes = torch.bincount(batch.segments_BT[row]).tolist()
            parts += targets_T.split(sizes)
        else:
            valid_T = slice(None) if batch.valid_BT is None else batch.valid_BT[row]
            parts.append(targets_T[valid_T])
    return [tuple(part.tolist()) for part in parts]


class TestSystems:
    def test_all_learn_from_the_same_proteins(self, models: ModuleType) -> None:
        table = made_table(40)
        wanted = sorted(tuple(int(token) for token in table[row]) for row in range(len(table)))
        for name in models.WHOLE:
            batches = models.batches_of(name, table)
            found = [one for batch in batches for one in sequences(batch)]
            assert sorted(found) == wanted, name

    def test_all_are_asked_for_as_many_residues(self, models: ModuleType) -> None:
        table = made_table(40)
        content = int(table.lengths.sum()) - len(table)  # <cls> is none
        for name in models.WHOLE:
            batches = models.batches_of(name, table)
            assert sum(int(batch.mask_BT.sum()) for batch in batches) == pytest.approx(
                0.15 * content, rel=0.02
            ), name
            assert not any((batch.mask_BT & (batch.targets_BT < 5)).any() for batch in batches)

    def test_a_peers_loss_is_of_the_masked_positions(
        self, models: ModuleType, modules: SimpleNamespace
    ) -> None:
        for batch in models.batches_of(models.BERT, made_table(20)):
            targets_BT = modules.encoders.masked_targets(batch)
            assert torch.equal(targets_BT != -100, batch.mask_BT)
            assert torch.equal(targets_BT[batch.mask_BT], batch.targets_BT[batch.mask_BT])

    def test_what_is_said_of_a_system(self, models: ModuleType) -> None:
        table = made_table(40)
        tokens = int(table.lengths.sum())
        batches = models.batches_of(models.BERT, table)
        found = models.Speed.of("a step", models.BERT, batches, [99.0, 2.0, 4.0, 8.0])
        widths = [batch.tokens_BT.shape for batch in batches]
        positions = sum(rows * width for rows, width in widths)
        assert found.tokens == tokens
        assert found.steps == math.ceil(40 / models.PEER_BATCH)
        assert found.padding == pytest.approx(1 - tokens / positions)
        assert found.logits == positions
        assert found.tokens_per_second == pytest.approx(tokens / 4)  # the first turn warms up
        assert found.low == pytest.approx(tokens / 8 + 0.2 * (tokens / 4 - tokens / 8))
        assert found.high == pytest.approx(tokens / 4 + 0.8 * (tokens / 2 - tokens / 4))

    def test_packed_has_no_padding_and_fewer_logits(self, models: ModuleType) -> None:
        table = made_table(40)
        speeds = {
            name: models.Speed.of("", name, models.batches_of(name, table), [1.0, 1.0])
            for name in models.WHOLE
        }
        packed = speeds[models.PACKED]
        assert packed.padding == 0.0
        assert packed.logits == round(packed.masked * packed.tokens)
        assert packed.padding < speeds[models.PADDED].padding < speeds[models.BERT].padding
        assert speeds[models.PADDED].padding == speeds[models.BERT_BY_LENGTH].padding
        assert packed.steps >= speeds[models.BERT].steps, "no fewer updates than the peers"

    def test_at_one_length_nobody_pads(self, models: ModuleType) -> None:
        table = TokenTable.of(np.full((32, 64), 7))
        for name in models.WHOLE:
            batches = models.batches_of(name, table)
            speed = models.Speed.of("", name, batches, [1.0, 1.0])
            assert speed.padding == 0.0
            assert speed.steps == 2


class TestMadeFile:
    def test_it_is_fasta_of_so_many_proteins(self, shards: ModuleType, tmp_path: Path) -> None:
        path = tmp_path / "made.fasta"
        num_residues = shards.write_fasta(path, 12_345, shards.MEDIAN, shards.SPREAD)
        records = path.read_text().split(">")[1:]
        lines = [record.splitlines() for record in records]
        assert [header for header, *_ in lines] == [f"made{row}" for row in range(12_345)]
        lengths = [sum(map(len, parts)) for _, *parts in lines]
        assert sum(lengths) == num_residues
        assert np.median(lengths) == pytest.approx(301, rel=0.03)
        assert np.log(lengths).std() == pytest.approx(0.64, rel=0.05)
        assert min(lengths) >= 20
        assert max(lengths) <= 2175
        assert set("".join("".join(parts) for _, *parts in lines)) == set("ACDEFGHIKLMNPQRSTVWY")
        assert len({"".join(parts) for _, *parts in lines}) == 12_345, "none is repeated"

    def test_it_is_the_same_every_time(self, shards: ModuleType, tmp_path: Path) -> None:
        for name in "ab":
            shards.write_fasta(tmp_path / name, 300, 40, 0.0)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        assert (tmp_path / "a").read_bytes().count(b"\n") == 600, "40 residues are one line"


@ONLY_LINUX
class TestWatched:
    def test_the_peak_is_of_that_program(self, shards: ModuleType) -> None:
        held, freed = (
            shards._watched(["-c", f"import time; held = b'x' * {size}; del held; time.sleep(0.5)"])
            for size in (1, 200 << 20)
        )
        assert freed.megabytes - held.megabytes == pytest.approx(200, abs=10)
        assert held.seconds > 0.5

    def test_a_program_ends_with_the_one_that_watches_it(
        self, shards: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watched: list[int] = []

        def stopped(pid: int) -> int:
            watched.append(pid)
            raise KeyboardInterrupt

        monkeypatch.setattr(shards, "_peak", stopped)
        with pytest.raises(KeyboardInterrupt):
            shards._watched(["-c", "import time; time.sleep(600)"])
        assert not Path(f"/proc/{watched[0]}").exists()

    def test_a_program_that_fails_is_told_with_its_last_line(self, shards: ModuleType) -> None:
        with pytest.raises(UserError, match=r"failed: ValueError: no room$"):
            shards._watched(["-c", "raise ValueError('no room')"])


class TestRefused:
    def test_a_disk_that_is_too_small(
        self, shards: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("litdata")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
        with pytest.raises(UserError, match=r"1\.0 GB left, 10,000,000 sequences take 4\.0"):
            shards.check(10_000_000)
        shards.check(1_000)

    def test_another_system_than_linux(
        self, shards: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pytest.importorskip("litdata")
        monkeypatch.setattr(shards, "STATUS", tmp_path / "status")
        with pytest.raises(UserError, match="only Linux has"):
            shards.check(10)

    def test_no_peer(self, modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(modules.proteins, "find_spec", lambda name: None)
        with pytest.raises(UserError, match="transformers is not installed"):
            modules.proteins.need_peer(["equal"])
        modules.proteins.need_peer(["shards"])


def test_growth_beyond_the_target_is_a_miss(shards: ModuleType) -> None:
    found = {"few": 1.0, "many": 2.0, "target": 64.0}
    for step, growth in (("prepare", 64.0), ("stream", 64.1)):
        found |= {f"{step}_megabytes_few": 1.0, f"{step}_megabytes_many": 1.0 + growth}
        found |= {f"{step}_seconds_few": 1.0, f"{step}_seconds_many": 1.0}
        found |= {f"{step}_growth_megabytes": growth}
    verdicts = list(shards.memory_table(found).columns[5].cells)
    assert verdicts == ["met", "missed"]


@ONLY_LINUX
@pytest.mark.slow
def test_shards_without_any_peer(tmp_path: Path) -> None:
    pytest.importorskip("litdata")
    words = [sys.executable, str(FOLDER / "proteins.py"), "--only", "shards", "--quick"]
    out = tmp_path / "found.json"
    done = subprocess.run([*words, "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["quick"]
    assert {"device", "versions", "commit", "dirty", "wall_seconds"} <= found.keys()
    one, *_ = found["shards"]["speed"]
    assert (one["sequences"], one["workers"], one["repetitions"]) == (2_000, 1, 2)
    assert one["low"] <= one["sequences_per_second"] <= one["high"]
    assert one["residues_per_second"] == pytest.approx(one["residues"] / one["seconds"], rel=1e-3)
    memory = found["shards"]["memory"]
    assert (memory["few"], memory["many"], memory["target"]) == (20_000, 40_000, 64)
    for step in ("prepare", "stream"):
        few, many = (memory[f"{step}_megabytes_{name}"] for name in ("few", "many"))
        assert few > 50, "Python and torch alone take more"
        assert memory[f"{step}_growth_megabytes"] == pytest.approx(many - few, abs=0.2)
    for said in ("2,000 proteins", "FASTA to shards, one process", "an epoch of packed batches"):
        assert said in done.stdout
