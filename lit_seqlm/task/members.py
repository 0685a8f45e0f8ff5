"""Several runs of one recipe, as members of an ensemble, and intervals from their errors on validation."""

# N = labels, M = members, K = targets

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from lit_seqlm.checkpoint import find_checkpoint, load_weights, read_checkpoint
from lit_seqlm.config import numbers
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.conformal import Band, SplitConformal
from lit_seqlm.metrics.uncertainty import Ensemble, ensemble
from lit_seqlm.model.property import PropertyModel

log = logging.getLogger(__name__)

ALIKE = ("model.", "head.", "data.target", "data.source.")  # what members must have in common
OWN = ("data.source.split_seed", "data.source.seed")


def members(
    model: PropertyModel, origin: dict[str, Any], runs: Sequence[str], tokenizer: Any
) -> list[PropertyModel]:
    """Copies of a model with the weights of other runs.

    Args:
        origin: the checkpoint that `model` has its weights from.
        runs: folders or checkpoints of the others.

    Raises:
        UserError: for a run of another recipe, and one that is there twice.
    """
    found, wanted = [], _recipe(origin)
    for run in runs:
        what = f"task.ensemble: {run}"
        theirs = read_checkpoint(find_checkpoint(run, said="task.ensemble: "))
        recipe = _recipe(theirs)
        if other := [key for key in sorted(wanted | recipe) if wanted.get(key) != recipe.get(key)]:
            raise UserError(
                f"{what} is of another recipe than init_from=: {other[0]} is {recipe.get(other[0])} and not "
                f"{wanted.get(other[0])}. Name runs that differ in their seed alone."
            )
        member = copy.deepcopy(model)
        load_weights(member, theirs, tokenizer, what)
        found.append(member)
    return found


def _recipe(checkpoint: dict[str, Any]) -> dict[str, Any]:
    flat = numbers(OmegaConf.create(checkpoint["config"]))
    return {key: v for key, v in flat.items() if key.startswith(ALIKE) and key not in OWN}


def check_distinct(runs: Sequence[str]) -> None:
    """Raise UserError where a run is named twice: it would count twice."""
    paths = [find_checkpoint(run, said="").resolve() for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise UserError(
                f"task.ensemble: {run} counts twice; init_from= is a member already. Name it once."
            )


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
                f"task.conformal: {run} kept no standard deviations of its validation rows. Train it again, or say "
                "task.conformal=null."
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
        keys = ("valid_rows", "valid_predictions", "valid_labels", "valid_sigmas")
        return _Kept(*(file[key][order_N] if key in file else None for key in keys))
