"""Where rows come from and where their answers go: refused before any work, and recognised afterwards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pooch

from lit_seqlm.errors import UserError

STDIN = "-"
ARRAYS = (".npy", ".npz")  # numbers alone; what is no number goes into a table beside them


def check_places(input: str, output: str, accepted: Sequence[str], overwrite: bool) -> Path:
    """Where the answers go.

    Args:
        accepted: endings.
        overwrite: whether what is there may be replaced.

    Raises:
        UserError: for an input that is missing; for an output of another ending, in a folder that is
            not there or not to be written to, that is there already, or is the input.
    """
    path = Path(output)
    if input != STDIN and not Path(input).is_file():
        raise UserError(
            f"task.input={input}: there is no such file. Name one, or - for standard input."
        )
    if not path.name.endswith(tuple(accepted)):
        raise UserError(f"task.output={output}: its name must end in {', '.join(accepted)}.")
    if not path.parent.is_dir():
        raise UserError(
            f"task.output={output}: there is no folder {path.parent}. Make it, or name another one."
        )
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"task.output={output}: cannot be written there. Name another place.")
    if input != STDIN and path.exists() and path.samefile(input):
        raise UserError(f"task.output={output} is the input. Name another file.")
    for place in (path, beside(path)) if path.suffix in ARRAYS else (path,):
        if place.exists() and not overwrite:
            raise UserError(
                f"{place} is there already. Name another task.output, or say task.overwrite=true."
            )
    return path


def beside(path: Path) -> Path:
    """Where the rows of an array are told."""
    return path.with_name(f"{path.stem}.rows.csv")


def described(path: str) -> dict[str, str]:
    """A file as a record keeps it; standard input has no digest."""
    return {"path": path, "sha256": "" if path == STDIN else pooch.file_hash(path)}


def unchanged(card: dict[str, Any]) -> bool:
    """Whether a file is what `described` said of it."""
    said = card.get("sha256")
    return bool(said) and Path(card["path"]).is_file() and described(card["path"]) == card
