"""A progress bar for reading and downloading, where there is a terminal to draw it on."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

DELAY = 2.0  # seconds before a bar shows itself: short work needs none


class ByteBar:
    """Bytes done of a total. It has the interface that pooch asks of a progress bar.

    Args:
        label: what is being done.
        total: bytes; 0 if not known yet.
    """

    def __init__(self, label: str, total: int = 0):
        self.label, self.total = label, total
        self.done = 0
        self._started = time.monotonic()
        self._console = Console(stderr=True)
        self._progress: Progress | None = None

    def __enter__(self) -> "ByteBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def update(self, amount: int) -> None:
        """So many bytes more."""
        self.move_to(self.done + amount)

    def move_to(self, done: int) -> None:
        """So many bytes in all."""
        self.done = done
        if self._progress is None:
            if not self._console.is_terminal or time.monotonic() - self._started < DELAY:
                return
            self._progress = self._draw()
        self._progress.update(self._task, completed=done, total=self.total or None)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _draw(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        progress = Progress(*columns, console=self._console, transient=True)
        self._task = progress.add_task(self.label, total=self.total or None)
        progress.start()
        return progress
