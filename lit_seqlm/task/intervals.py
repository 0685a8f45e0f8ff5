"""Intervals from the errors that runs made on their validation rows."""

# N = labels, M = members, K = targets

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_seqlm.checkpoint import find_checkpoint
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.conformal import Band, SplitConformal
from lit_seqlm.metrics.uncertainty import Ensemble, ensemble

log = logging.getLogger(__name__)


def band(found: Ensemble, has_sigma: bool) -> Band:
    """What intervals are measured in: sigmas if heads predict them; a few members' spread is rough."""
    return Band.scaled(found.mean_NK, found.sigma) if has_sigma else Band.around(found.mean_NK)


def calibrated(
    runs: Sequence[str], names: Sequence[str], miscoverage: float, has_sigma: bool
) -> SplitConformal:
    """Half-widths of intervals, from what the runs predicted for the validation rows that they kept.

    Validation chose the weights, so these errors are somewhat smaller than those on new rows, and the
    promise of `SplitConformal` holds for them only nearly.

    Args:
        runs: whose mean is the prediction.
        names: of the targets.
        has_sigma: whether the runs' heads predict standard deviations: see `band`.

    Raises:
        UserError: where predictions are missing or are not of the same rows.
    """
    kept = [_validation(run, names) for run in runs]
    rows_N, label_NK = kept[0].rows_N, kept[0].label_NK
    for run, theirs in zip(runs, kept, strict=True):
        # Rows are counted within their split, so its labels tell whether it is the same one.
        same = np.array_equal(rows_N, theirs.rows_N)
        if not same or not np.array_equal(label_NK, theirs.label_NK, equal_nan=True):
            raise UserError(
                f"task.conformal: {run} validated on other rows than {runs[0]}. Make an ensemble of runs with one "
                "data.source.split_seed, or say task.conformal=null."
            )
        if has_sigma and theirs.sigma_NK is None:
            raise UserError(
                f"task.conformal: {run} kept no standard deviations of its validation rows. Repeat its command with "
                "resume=never, or say task.conformal=null."
            )
    variances = [one.sigma_NK**2 for one in kept if one.sigma_NK is not None]
    means_MNK = np.stack([one.prediction_NK for one in kept])
    together = ensemble(means_MNK, np.stack(variances) if variances else None)
    found = SplitConformal.fit(band(together, has_sigma), label_NK, miscoverage)
    log.info(
        "intervals of %g %%, calibrated on the validation rows (%d), which also chose the weights",
        100 * (1 - miscoverage), len(rows_N),
    )  # fmt: skip
    for name, radius in zip(names, found.radius_K, strict=True):
        if np.isinf(radius):
            log.warning("%s has too few validation labels for an interval: it is infinite", name)
    return found


@dataclass(frozen=True)
class _Kept:
    """A validation split in the order of its rows; no sigmas where the head has none."""

    rows_N: np.ndarray
    prediction_NK: np.ndarray
    label_NK: np.ndarray
    sigma_NK: np.ndarray | None


def _validation(run: str, names: Sequence[str]) -> _Kept:
    """What a run predicted of its validation split."""
    checkpoint = find_checkpoint(run, said="")
    places = [
        folder / "predictions.npz" for folder in (checkpoint.parent, checkpoint.parent.parent)
    ]
    path = next((place for place in places if Path(place).is_file()), None)
    if path is None:
        raise UserError(
            f"task.conformal: {places[-1]} is not there. It is written when a fine-tuning ends; name such a "
            "run's folder, or say task.conformal=null."
        )
    with np.load(path) as file:
        if file["targets"].tolist() != list(names):
            raise UserError(
                f"task.conformal: {path} is of other targets: {file['targets'].tolist()}."
            )
        order_N = np.argsort(file["valid_rows"], kind="stable")
        keys = ("valid_rows", "valid_predictions", "valid_labels")
        rows_N, prediction_NK, label_NK = (file[key][order_N] for key in keys)
        sigma_NK = file["valid_sigmas"][order_N] if "valid_sigmas" in file else None
        return _Kept(rows_N, prediction_NK, label_NK, sigma_NK)
