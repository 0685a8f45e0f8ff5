"""A bar for each step of the preparation, where there is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Rate(ProgressColumn):
    """Things a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="dim")


class Steps:
    """Bars one below the other, each with how much is done, how fast, and how long it will take."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    @contextmanager
    def shown(self) -> Iterator["Steps"]:
        with self._progress:
            yield self

    def begin(self, label: str, total: int | None) -> "Step":
        return Step(self._progress, self._progress.add_task(label, total=total))


class Step:
    """One bar."""

    def __init__(self, progress: Progress, task: object):
        self._progress, self._task = progress, task
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount
        self._progress.update(self._task, completed=self.done)  # type: ignore[arg-type]

    def finish(self) -> None:
        self._progress.update(self._task, total=self.done, completed=self.done)  # type: ignore[arg-type]
