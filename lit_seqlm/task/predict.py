"""Properties of every row of a file, in the units of the data, with what is known of their errors."""

# B = sequences, T = tokens, K = targets, C = covariates, M = members of an ensemble, P = numbers of a target

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_seqlm.checkpoint import load_weights
from lit_seqlm.data.row_tables import ABOUT, TABLES
from lit_seqlm.data.row_windows import RowWindow
from lit_seqlm.data.targets import Target
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.conformal import SplitConformal
from lit_seqlm.metrics.uncertainty import ensemble as mixture
from lit_seqlm.model.property import PropertyModel
from lit_seqlm.task.intervals import band, calibrated
from lit_seqlm.task.members import check_distinct, members
from lit_seqlm.task.rows import RowTask


class Predict(RowTask):
    """A fine-tuned run, whole: trunk, head and scale; float64.

    A target has a column, ``gap [Ha]``. ``gap std [Ha]`` stands beside it where the head predicts an
    uncertainty or there are several members: the standard deviation of their mixture. ``gap low
    [Ha]`` and ``gap high [Ha]`` are the ends of the interval, as wide as that deviation says where the
    head predicts it, else of one width. A class has its probability.

    Args:
        run: of the weights, as ``init_from`` names it: there its validation predictions are.
        ensemble: more runs of the same recipe; the answer is the mean of all.
        conformal: share of labels that may lie outside the interval; null: no interval.
        model, head, targets, kind, covariates: see `PropertyTask`.
        input, output, column, window, token_budget, overwrite: see `RowTask`.
    """

    inherits = ("model", "data", "head")
    accepted = TABLES

    def __init__(
        self,
        model: nn.Module,
        head: Callable[..., Any],
        targets: Sequence[Target],
        kind: str,
        covariates: Sequence[str],
        run: str | None,
        ensemble: list[str],
        conformal: float | None,
        input: str,
        output: str,
        column: str | None,
        window: int,
        token_budget: int,
        overwrite: bool,
    ):
        whole = PropertyModel.on(model, head, kind, len(targets), len(covariates))
        super().__init__(whole, input, output, column, window, token_budget, overwrite)
        if conformal is not None and (kind != "regression" or not 0 < conformal < 1):
            raise UserError(
                f"task.conformal={conformal}: a share between 0 and 1, such as 0.1, of labels that are numbers, not "
                "classes."
            )
        assert run is not None, "a task that needs an origin has one"
        check_distinct([run, *ensemble])
        self.targets, self.is_regression = list(targets), kind == "regression"
        self.has_sigma = self.is_regression and whole.head.has_sigma
        self.runs, self.miscoverage = [run, *ensemble], conformal
        self.intervals: SplitConformal | None = None
        self.others = nn.ModuleList()

    def begin(self, origin: dict[str, Any], tokenizer: Any, what: str) -> None:
        """Take the weights of all members, and the errors of their validation."""
        load_weights(self.model, origin, tokenizer, what)
        self.others.extend(members(self.model, origin, self.runs[1:], tokenizer))
        if self.miscoverage is not None:
            names = [target.name for target in self.targets]
            self.intervals = calibrated(self.runs, names, self.miscoverage, self.has_sigma)
            self.card["conformal"] = {"calibrated_on": "validation", **self.intervals.state_dict()}
        self.card["members"] = self.runs
        self.columns = self._columns()

    def _columns(self) -> list[str]:
        kinds = ["", "std"] if self.others or self.has_sigma else [""]
        kinds += ["low", "high"] if self.intervals else []
        return [_column(target, kind) for target in self.targets for kind in kinds]

    def covariates(self, window: RowWindow, datamodule: Any) -> Tensor | None:
        if not self.is_regression or not any(m.scale.slope_CK.any() for m in self._members()):
            return None
        return torch.from_numpy(datamodule.covariates_of(window.sequences))

    def answers(self, tokens_BT: Tensor, covariates_BC: Tensor | None) -> Tensor:
        means, variances = [], []
        for member in self._members():
            prediction, scale = member(tokens_BT), member.scale
            means.append(scale.to_raw(prediction.mean_BK, covariates_BC).cpu().numpy())
            if self.has_sigma:
                variances.append(scale.spread_to_raw(prediction.sigma).square().cpu().numpy())
        found = mixture(np.stack(means), np.stack(variances) if variances else None)
        parts = [found.mean_NK]
        if variances or self.others:
            parts.append(found.sigma)
        if self.intervals:
            parts += self.intervals.interval(band(found, self.has_sigma))
        return torch.from_numpy(np.stack(parts, -1)).flatten(1)  # K * P, each target's side by side

    def _members(self) -> list[Any]:
        return [self.model, *self.others]


def _column(target: Target, kind: str) -> str:
    name = f"predicted {target.name}" if target.name in ABOUT else target.name
    words = [name, kind, f"[{target.unit}]" if target.unit not in ("", "dimensionless") else ""]
    return " ".join(word for word in words if word)
