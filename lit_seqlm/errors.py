"""Errors with an audience: what the user can mend is told in one message, without a traceback."""


class UserError(ValueError):
    """A mistake the user can mend: run.py prints the message alone and exits with status 2."""


class DivergedError(UserError):
    """Training produced a loss that is not finite; the run is recorded as ``diverged``."""
