"""Errors with an audience: what the user can mend is told in one message, without a traceback."""

import difflib
from typing import Any


class UserError(ValueError):
    """A mistake the user can mend: run.py prints the message alone and exits with status 2."""


class DivergedError(UserError):
    """Training produced a loss that is not finite; the run is recorded as ``diverged``."""


def did_you_mean(word: str, choices: Any) -> str:
    """'Did you mean lr? Accepted: ...'"""
    names = sorted(str(choice) for choice in choices)
    close = difflib.get_close_matches(word, names, n=1)
    return (f"Did you mean {close[0]}? " if close else "") + f"Accepted: {', '.join(names)}."
