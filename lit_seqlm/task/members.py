"""Several runs of one recipe, as members of an ensemble."""

import copy
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from lit_seqlm.checkpoint import find_checkpoint, load_weights, read_checkpoint
from lit_seqlm.config import numbers
from lit_seqlm.errors import UserError
from lit_seqlm.model.property import PropertyModel

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
