"""Every combination of kernels, widths and k on the neighbours that a run kept: seconds, and no model."""

# S = settings

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.cache.kernel import BANDWIDTHS, METRIC
from lit_seqlm.cache.mixing.components import log, mix, stack
from lit_seqlm.cache.mixing.settings import TriedSetting, best_settings
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.cache.neighbour_log import NeighbourLog
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.metrics.perplexity import exp

TUNABLE = NearestMemory.tunable
WORDS = {"kernel": tuple(METRIC), "bandwidth": BANDWIDTHS}
SUFFIX = ".json"


class KernelSweep:
    """What a run's kept neighbours say under other settings, each beside the static model.

    Args:
        folder: of a run with ``task.keep_neighbours``.
        memory: its name in the run; null: the only one that kept neighbours.

    Raises:
        UserError: if nothing was kept there, or the record of validation is missing.
    """

    def __init__(self, folder: Path, memory: str | None):
        self.records = folder / "records"
        names = sorted(
            path.name.removeprefix("valid.").removesuffix(SUFFIX)
            for path in self.records.glob(f"valid.*{SUFFIX}")
        )
        if not self.records.is_dir():
            raise UserError(f"{folder} is no folder of an evaluation: it has no records.")
        if not names:
            raise UserError(
                f"{folder} holds no neighbours of validation. Evaluate with a cache that searches (unbounded, knn) "
                "and task.keep_neighbours=1024."
            )
        if memory is None and len(names) > 1:
            raise UserError(f"several memories kept neighbours. Say which: {', '.join(names)}.")
        self.memory = names[0] if memory is None else memory
        if self.memory not in names:
            raise UserError(
                f"{self.memory}: no such memory kept neighbours. {did_you_mean(self.memory, names)}"
            )
        self.valid, self.valid_log = self._load("valid")

    def settings(self, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Every combination of `grid`, as far as its kernel reads it, around the run's own best setting.

        Raises:
            UserError: for a name or a word that does not exist.
        """
        for key, values in grid.items():
            if key not in TUNABLE:
                raise UserError(f"{key}: there is no such option. {did_you_mean(key, TUNABLE)}")
            for value in values if key in WORDS else ():
                if value not in WORDS[key]:
                    raise UserError(f"{key}={value}: {did_you_mean(str(value), WORDS[key])}")
        own = best_settings(_only(self.valid, self.memory))[0][self.memory]
        around = dict(self.valid.settings[self.memory][own])
        kept = self.valid_log.kept(len(self.valid))
        around["k"] = kept if around["k"] is None else min(around["k"], kept)
        points = product(*[grid.get(key, [around[key]]) for key in TUNABLE])
        every = [dict(zip(TUNABLE, point, strict=True)) for point in points]
        read = {key for one in every for key in what_counts(one)}
        for key in grid:
            if key not in read:
                raise UserError(f"{key}: no kernel and bandwidth that was asked for reads it.")
        different = {tuple(one[key] for key in what_counts(one)): one for one in reversed(every)}
        return list(reversed(different.values()))

    def run(self, grid: Mapping[str, Sequence[Any]]) -> list[TriedSetting]:
        """Each setting on validation with its own best weight, the best first."""
        settings = self.settings(grid)
        log_p_SN = self.valid_log.weigh(settings, len(self.valid))
        tried = best_settings(self._record(self.valid, settings, log_p_SN))[1]
        return sorted(tried, key=lambda one: one.nll)

    def test(self, chosen: TriedSetting) -> tuple[float, float]:
        """Test perplexity of the static model, and with a setting and its weight as validation chose them."""
        test, test_log = self._load("test")
        log_p_SN = test_log.weigh([chosen.setting], len(test))
        record = self._record(test, [chosen.setting], log_p_SN)
        weights = np.array([1 - chosen.lam, chosen.lam])
        mixed_N = mix(log(weights), stack(record, {self.memory: 0}))
        return exp(-float(test.static_N.mean())), exp(-float(mixed_N.mean()))

    def _load(self, split: str) -> tuple[Record, NeighbourLog]:
        record = Record.load(self.records / f"{split}.npz")
        kept = NeighbourLog(self.records, f"{split}.{self.memory}")
        kept.check(len(record))
        return record, kept

    def _record(self, of: Record, settings: list[dict[str, Any]], log_p_SN: np.ndarray) -> Record:
        return Record(of.static_N, of.words_N, {self.memory: log_p_SN}, {self.memory: settings}, {})


def what_counts(setting: Mapping[str, Any]) -> tuple[str, ...]:
    """The options that a setting's kernel reads: a width of its own, or the k-th distance times a scale."""
    if setting["kernel"] in ("dot", "rbf"):
        return "k", "kernel", "theta"
    return (
        "k",
        "kernel",
        "bandwidth",
        "theta" if setting["bandwidth"] == "fixed" else "bandwidth_scale",
    )


def _only(record: Record, memory: str) -> Record:
    """Of a record with several memories, one."""
    if memory not in record.settings:
        raise UserError(
            f"{memory}: its neighbours lie beside a record without it. {did_you_mean(memory, record.settings)}"
        )
    own = {memory: record.memories[memory]}
    return Record(record.static_N, record.words_N, own, {memory: record.settings[memory]}, {})
