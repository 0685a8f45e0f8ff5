"""The neighbours that a memory found, written once, so that kernels are tried in seconds and without the model."""

# N = tokens, K = neighbours, S = settings

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_seqlm.cache.kernel import METRIC, check_kernel, log_kernel, log_prob
from lit_seqlm.errors import UserError
from lit_seqlm.results import write_atomically

BLOCK = 4096  # tokens weighed at once
MEASURE, MATCH = np.dtype("<f4"), np.dtype(np.bool_)
KEYS = {"columns", "metric"}


class NeighbourLog:
    """Measures and matches of the k best neighbours of every token, in two files that grow with the stream.

    A row is a token: `columns` float32 measures, best first and infinite where there is no neighbour, and as many
    bytes that say whether the neighbour's word was the token's. Whatever a kernel makes of them is computed later.

    Args:
        folder: of the run's records.
        name: ``<split>.<memory>``.
    """

    def __init__(self, folder: Path, name: str):
        self.name, self.row = name, 0
        self.measures, self.matches = folder / f"{name}.measures", folder / f"{name}.matches"
        self.about = folder / f"{name}.json"

    def create(self, num_tokens: int, k: int, metric: str, row: int) -> None:
        """Ready to write a split of `num_tokens` from `row` on; what an interrupted reading wrote is kept.

        Raises:
            UserError: if there is no room, or if the rows before `row` are not there.
        """
        if k < 1:
            raise UserError(
                f"task.keep_neighbours={k}: at least one of each token, or null for none."
            )
        self.row = row
        if row:
            self._go_on(k, metric)
            return
        self.about.parent.mkdir(parents=True, exist_ok=True)
        wanted = num_tokens * k * (MEASURE.itemsize + MATCH.itemsize)
        if shutil.disk_usage(self.about.parent).free < wanted:
            raise self._full(f"{wanted / 2**20:,.0f} MB are needed")
        for path in (self.measures, self.matches):
            path.write_bytes(b"")
        try:
            write_atomically(self.about, json.dumps({"columns": k, "metric": metric}))
        except OSError as error:
            raise self._full(error.strerror or str(error)) from error

    def append(self, measure_NK: Tensor, match_NK: Tensor) -> None:
        """The next tokens' neighbours, best first; infinite where there is none.

        Raises:
            UserError: if the disk is full.
        """
        about = self._read_about()
        found, columns = measure_NK.size(1), about["columns"]
        far = -np.inf if about["metric"] == "dot" else np.inf
        measures = np.full((len(measure_NK), columns), far, dtype=MEASURE)
        matches = np.zeros(measures.shape, dtype=MATCH)
        measures[:, :found] = measure_NK[:, :columns].cpu().numpy()
        matches[:, :found] = match_NK[:, :columns].cpu().numpy()
        try:
            for path, values in ((self.measures, measures), (self.matches, matches)):
                with path.open("r+b") as file:
                    file.seek(self.row * columns * values.itemsize)
                    file.write(values.tobytes())
        except OSError as error:
            raise self._full(error.strerror or str(error)) from error
        self.row += len(measure_NK)

    def weigh(self, settings: Sequence[Mapping[str, Any]], num_tokens: int) -> np.ndarray:
        """log p of every token, float32 (S, N), as the memory would have given it.

        Args:
            settings: values of `NearestMemory.tunable`.
            num_tokens: of the record beside which this was written.

        Raises:
            UserError: if nothing was kept or it belongs to another reading; if a setting needs more neighbours than
                were kept, another metric, or is none that a memory would take.
        """
        kept = self.kept(num_tokens)
        for setting in settings:
            self._check_setting(setting, kept)
        found_SN = np.empty((len(settings), num_tokens), dtype=np.float32)
        for start, measure_NK, match_NK in self._blocks(num_tokens):
            rows = slice(start, start + len(measure_NK))
            for row, setting in enumerate(settings):
                values = {key: value for key, value in setting.items() if key != "k"}
                near_NK = measure_NK[:, : setting["k"]]
                weight_NK = log_kernel(near_NK, **values).masked_fill(near_NK.isinf(), -torch.inf)
                found_SN[row, rows] = log_prob(weight_NK, match_NK[:, : setting["k"]]).numpy()
        return found_SN

    def kept(self, num_tokens: int) -> int:
        """The k up to which settings can be told.

        That is the most neighbours that any token has: a memory that looked for fewer than were asked for left the
        other columns empty. One that never found more has no more to say. A stream shorter than k says all it can.

        Raises:
            UserError: as `check`.
        """
        self.check(num_tokens)
        found = [
            int(measure_NK.isfinite().sum(1).max()) for _, measure_NK, _ in self._blocks(num_tokens)
        ]
        most = max(found, default=0)
        return most if most < num_tokens - 1 else int(self._read_about()["columns"])

    def check(self, num_tokens: int) -> None:
        """Whether both files hold so many tokens; UserError if not."""
        columns = self._read_about()["columns"]
        for path, kind in ((self.measures, MEASURE), (self.matches, MATCH)):
            wanted = num_tokens * columns * kind.itemsize
            there = path.stat().st_size if path.exists() else None
            if there != wanted:
                said = "is missing" if there is None else f"has {there:,} bytes, not {wanted:,}"
                raise UserError(
                    f"{path} {said}: it does not belong to the record beside it, of {num_tokens:,} tokens with "
                    f"{columns} neighbours each. Evaluate again with resume=never."
                )

    def _blocks(self, num_tokens: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        columns = self._read_about()["columns"]
        for start in range(0, num_tokens, BLOCK):
            shape = (min(BLOCK, num_tokens - start), columns)
            values = (
                np.fromfile(path, kind, shape[0] * columns, offset=start * columns * kind.itemsize)
                for path, kind in ((self.measures, MEASURE), (self.matches, MATCH))
            )
            measure_NK, match_NK = (torch.from_numpy(part.reshape(shape)) for part in values)
            yield start, measure_NK, match_NK

    def _check_setting(self, setting: Mapping[str, Any], kept: int) -> None:
        kernel, k, read = setting["kernel"], setting["k"], self._read_about()["metric"]
        if check_kernel(kernel, setting["bandwidth"]) != read:
            fitting = [name for name, metric in METRIC.items() if metric == read]
            raise UserError(f"kernel={kernel}: what was kept serves {', '.join(fitting)}.")
        if k is None or k < 1:
            raise UserError(f"k={k}: say 1 to {kept} neighbours, as many as were kept.")
        if k > kept:
            raise UserError(
                f"k={k}: {kept} neighbours of {self.name} were kept. Say fewer, or evaluate again with "
                f"cache.k={k} and task.keep_neighbours={k}."
            )
        for key in ("theta", "bandwidth_scale"):
            if kernel != "dot" and not setting[key] > 0:
                raise UserError(f"{key}={setting[key]}: a width is above 0.")

    def _go_on(self, k: int, metric: str) -> None:
        """After an interruption: no more and no less than `row` rows."""
        about = self._read_about()
        if (about["columns"], about["metric"]) != (k, metric):
            raise UserError(
                f"{self.about}: an interrupted reading kept {about['columns']} neighbours by {about['metric']}, not "
                f"{k} by {metric}. Say the same again, or resume=never."
            )
        for path, kind in ((self.measures, MEASURE), (self.matches, MATCH)):
            size = self.row * k * kind.itemsize
            if not path.exists() or path.stat().st_size < size:
                raise UserError(
                    f"{path} does not hold the {self.row:,} tokens that were read before the interruption. "
                    "Say resume=never to read them again."
                )
            with path.open("r+b") as file:
                file.truncate(size)

    def _read_about(self) -> dict[str, Any]:
        try:
            about = json.loads(self.about.read_text())
        except FileNotFoundError as error:
            raise UserError(
                f"no neighbours were kept in {self.about.parent} under the name {self.name}. Evaluate with "
                "task.keep_neighbours=1024 (and resume=never, if it was evaluated without)."
            ) from error
        except ValueError as error:
            raise UserError(f"{self.about} is broken. Evaluate again with resume=never.") from error
        if not isinstance(about, dict) or about.keys() != KEYS:
            raise UserError(f"{self.about} tells of no kept neighbours: it is another file.")
        return about

    def _full(self, said: str) -> UserError:
        return UserError(
            f"no room for neighbours in {self.about.parent} ({said}). Make room and give the same command again, or "
            "say a smaller task.keep_neighbours, or null."
        )
