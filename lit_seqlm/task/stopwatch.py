"""Seconds spent on one thing, with pauses."""

import time


class Stopwatch:
    """Stands still until started; starting a running one or stopping a standing one changes nothing."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def start(self) -> None:
        self._before, self._since = self.seconds, time.monotonic()

    def stop(self) -> None:
        self._before, self._since = self.seconds, None
