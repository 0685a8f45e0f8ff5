"""Seconds spent on one thing, with pauses."""

import time


class Stopwatch:
    """Stands still until started; starting a running one or stopping a standing one changes nothing."""

    def __init__(self) -> None:
        self._before, self._since = 0.0, float("nan")

    @property
    def seconds(self) -> float:
        running = time.monotonic() - self._since
        return self._before + (running if running == running else 0.0)

    def start(self) -> None:
        self._before, self._since = self.seconds, time.monotonic()

    def stop(self) -> None:
        self._before, self._since = self.seconds, float("nan")
