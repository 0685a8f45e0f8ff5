"""Tasks that read any file with a trained model, row by row, and write an answer for each."""

# B = sequences, N = rows of a window, K = numbers of a row, T = tokens

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from lit_seqlm.data.input_rows import Tally
from lit_seqlm.data.row_files import row_file
from lit_seqlm.data.row_places import check_places, described, unchanged
from lit_seqlm.data.row_windows import RowWindow, read_windows, shown
from lit_seqlm.errors import UserError
from lit_seqlm.task.base import Task
from lit_seqlm.task.context import warn_of_redraws

log = logging.getLogger(__name__)


class RowTask(Task):
    """Each row of the input has one of the output, in its order: numbers, or the reason why there are none.

    A window of rows at a time, so memory does not grow. Sequences of a batch have one length, so no
    answer depends on padding. One over `data.max_len` is refused, also where training truncated it.

    Args:
        model: has a `trunk`.
        input: a file that the data can read, or ``-`` for standard input.
        output: a file; its ending says of which kind.
        column: of the sequences in the input; null: as the data usually call it.
        window: rows sorted by length together.
        token_budget: tokens of a batch.
        overwrite: whether an output that is there already may be replaced.
    """

    inherits: tuple[str, ...] = ("model", "data")
    uses_splits = False
    num_kernels = 4  # one for all layers; each shape's is used up before the next shape comes
    headline = "rows/not_ok"
    accepted: tuple[str, ...] = ()  # endings of the output
    vector = ""  # what the numbers of a row are called together; empty: each is of its own kind
    dtype = "float64"  # of numbers
    columns: Sequence[str] = ()  # a name for each number of a row; a subclass says which
    texts: Sequence[str] = ()  # those of them that are no numbers
    own_arrays = False  # whether an array of the row's own shape follows them

    def __init__(
        self,
        model: nn.Module,
        input: str,
        output: str,
        column: str | None,
        window: int,
        token_budget: int,
        overwrite: bool,
    ):
        super().__init__(model, {})
        for key, size in (("window", window), ("token_budget", token_budget)):
            if size < 1:
                raise UserError(f"task.{key}={size}: it must be at least 1.")
        self.output = check_places(input, output, self.accepted, overwrite)
        self.input, self.column = input, column
        self.window, self.token_budget, self.num_ends = window, token_budget, 0

    def answers(self, tokens_BT: Tensor, covariates_BC: Tensor | None) -> Tensor | np.ndarray:
        """Numbers (B, K) of sequences of one length; as objects where there are texts or arrays."""
        raise NotImplementedError

    def own_tokens(self, num_tokens: int) -> slice:
        """Where a sequence's tokens stand between its ends, the first of which is its begin."""
        return slice(1, num_tokens + 1 - self.num_ends)

    def covariates(self, window: RowWindow, datamodule: Any) -> Tensor | None:
        """What `answers` is to know of each readable row beside its tokens."""
        return None

    @staticmethod
    def stands(card: dict[str, Any]) -> bool:
        """Whether input and output are still what they were; of standard input nobody knows."""
        return all(unchanged(card.get(place, {})) for place in ("input", "output"))

    def run(
        self, trainer: lightning.Trainer, datamodule: Any, last: str | None
    ) -> dict[str, float]:
        if trainer.world_size > 1:
            raise UserError(
                "rows are answered on one device, in their order: say trainer.devices=1."
            )
        self.card["input"] = described(self.input)
        self.num_ends = datamodule.tokenizer.num_ends
        windows = self._windows(datamodule)
        first = next(windows, None)  # before anything is written: a wrong column shows here
        if first is None:
            raise UserError(f"task.input={self.input} has no rows.")
        self.to(trainer.strategy.root_device).eval()
        trainer.precision_plugin.convert_module(self.model)
        warn_of_redraws(self.model)
        self.clock.start()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            tally = self._write(chain([first], windows), datamodule)
        self.clock.stop()
        self.card["output"] = described(str(self.output))
        rate = round(tally.total / max(self.clock.seconds, 1e-9), 1)
        level = logging.WARNING if tally.num_bad else logging.INFO
        log.log(level, "%s: %s, %.0f rows a second", self.output, tally.told(), rate)
        return {**tally.numbers(), "rows/per_second": rate}

    def _windows(self, datamodule: Any) -> Iterator[RowWindow]:
        if not hasattr(datamodule, "rows"):
            raise UserError(
                f"task.input={self.input}: {type(datamodule).__name__} reads no files row by row. Give "
                "init_from= a run on data such as data=moses or data=qm8."
            )
        rows = datamodule.rows(self.input, self.column)
        places = getattr(self.model.trunk.positions, "weight", None)  # where they are learned
        limits = [] if places is None else [len(places)]
        if datamodule.max_len is not None:
            limits.append(datamodule.max_len + datamodule.tokenizer.num_ends)
        return read_windows(rows, datamodule.tokenizer, min(limits, default=None), self.window)

    def _write(self, windows: Iterable[RowWindow], datamodule: Any) -> Tally:
        tally = Tally()
        looks = self.vector, self.dtype, self.texts, self.own_arrays
        with row_file(self.output, self.columns, *looks) as file:
            for window in shown(windows, self.input):
                file.write(window.rows, self._answered(window, datamodule))
                tally.add(window.rows)
        return tally

    def _answered(self, window: RowWindow, datamodule: Any) -> np.ndarray:
        """Answers (N, K) of all rows; NaN, or None for what is no number, where a row has none."""
        missing = [None if name in self.texts else np.nan for name in self.columns]
        missing += [None] * self.own_arrays
        kind = "object" if None in missing else self.dtype
        values_NK = np.array([missing] * len(window.rows), kind)
        known = self.covariates(window, datamodule)
        for rows_B, tokens_BT in window.batches(self.token_budget):
            covariates_BC = None if known is None else known[rows_B].to(self.device)
            found_BK = self.answers(tokens_BT.to(self.device), covariates_BC)
            plain_BK = found_BK.cpu().numpy() if isinstance(found_BK, Tensor) else found_BK
            values_NK[window.places_N[rows_B]] = plain_BK
            self.num_tokens += tokens_BT.numel()
        return values_NK
