"""The neighbours that a memory found, written once, so that kernels are tried in seconds and without the model."""

# N = tokens, K = neighbours, S = settings

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.cache.kernel import METRIC, check_kernel, log_kernel, log_prob
from lit_seqlm.cache.mixing.settings import TriedSetting, best_settings
from lit_seqlm.cache.record import Record
from lit_seqlm.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

BLOCK = 4096  # tokens weighed at once
TUNABLE = ("k", "kernel", "bandwidth", "bandwidth_scale", "theta")


class NeighbourLog:
    """Measures and matches of the k best neighbours of every token, in two files that grow with the stream.

    Args:
        folder: of the run's records.
        name: ``<split>.<memory>``.
    """

    def __init__(self, folder: Path, name: str):
        self.measures, self.matches = folder / f"{name}.measure.npy", folder / f"{name}.match.npy"
        self.about = folder / f"{name}.json"

    def create(self, num_tokens: int, k: int, metric: str, row: int) -> None:
        """Room for a whole split, written from `row` on; what an interrupted reading wrote is kept."""
        wanted = {"num_tokens": num_tokens, "k": k, "metric": metric}
        self.row = row
        if self.about.exists() and json.loads(self.about.read_text()) == wanted:
            return
        self.about.parent.mkdir(parents=True, exist_ok=True)
        shape = (num_tokens, k)
        try:
            np.lib.format.open_memmap(self.measures, "w+", np.float32, shape).flush()
            np.lib.format.open_memmap(self.matches, "w+", np.bool_, shape).flush()
        except OSError as error:
            raise UserError(
                f"no room for {num_tokens * k * 5 / 2**20:,.0f} MB of neighbours in {self.about.parent} "
                f"({error.strerror}). Say task.keep_neighbours=null or fewer."
            ) from error
        self.about.write_text(json.dumps(wanted))

    def append(self, measure_NK: Tensor, match_NK: Tensor) -> None:
        """The next tokens' neighbours, best first; infinite where there is none."""
        about = json.loads(self.about.read_text())
        k = min(about["k"], measure_NK.size(1))
        rows = slice(self.row, self.row + len(measure_NK))
        measures = np.lib.format.open_memmap(self.measures, "r+")
        matches = np.lib.format.open_memmap(self.matches, "r+")
        measures[rows, k:] = -np.inf if about["metric"] == "dot" else np.inf
        measures[rows, :k], matches[rows, :k] = measure_NK[:, :k].cpu(), match_NK[:, :k].cpu()
        self.row += len(measure_NK)

    def weigh(self, settings: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """log p of every token, float32 (S, N), as the memory would have given it.

        Raises:
            UserError: if nothing was kept, or a setting needs more neighbours or another metric.
        """
        if not self.about.exists():
            raise UserError(
                f"no neighbours were kept in {self.about.parent}. Evaluate with task.keep_neighbours=1024."
            )
        about = json.loads(self.about.read_text())
        for setting in settings:
            if check_kernel(setting["kernel"], setting["bandwidth"]) != about["metric"]:
                fitting = [kernel for kernel, metric in METRIC.items() if metric == about["metric"]]
                raise UserError(
                    f"kernel={setting['kernel']}: what was kept serves {', '.join(fitting)}."
                )
            if setting["k"] is None or setting["k"] > about["k"]:
                raise UserError(f"k={setting['k']}: {about['k']} neighbours were kept.")
        measures, matches = np.load(self.measures, "r"), np.load(self.matches, "r")
        found_SN = np.empty((len(settings), len(measures)), dtype=np.float32)
        for start in range(0, len(measures), BLOCK):
            rows = slice(start, start + BLOCK)
            measure_NK = torch.from_numpy(measures[rows].copy())
            match_NK = torch.from_numpy(matches[rows].copy())
            for row, setting in enumerate(settings):
                values = {key: value for key, value in setting.items() if key != "k"}
                near_NK = measure_NK[:, : setting["k"]]
                weight_NK = log_kernel(near_NK, **values).masked_fill(near_NK.isinf(), -torch.inf)
                found_SN[row, rows] = log_prob(weight_NK, match_NK[:, : setting["k"]])
        return found_SN


def sweep(
    folder: Path, memory: str, given: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]
) -> list[TriedSetting]:
    """Every combination of `grid` on validation, each with its own best weight, from what a run kept.

    Args:
        folder: of the run.
        given: the memory's values where the grid names none.
    """
    for key in grid:
        if key not in TUNABLE:
            raise UserError(f"{key}: there is nothing of that name. {did_you_mean(key, TUNABLE)}")
    values = [list(grid.get(key, [given[key]])) for key in TUNABLE]
    settings = [dict(zip(TUNABLE, point, strict=True)) for point in product(*values)]
    record = Record.load(folder / "records" / "valid.npz")
    record.memories = {memory: NeighbourLog(folder / "records", f"valid.{memory}").weigh(settings)}
    record.settings = {memory: settings}
    return best_settings(record)[1]
