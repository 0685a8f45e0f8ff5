"""What is written to a terminal, a file or a pipe."""

import logging
import sys
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import track

FILE_ONLY = {"on_screen": False}  # as `extra` of a message that is too long for a screen
WIDE = 160  # columns of a file or a pipe, where nothing needs to be narrow


class Console(logging.StreamHandler[Any]):
    """Writes to what sys.stdout is now: a progress bar puts itself there, and prints the lines above itself."""

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, value: Any) -> None:
        """Fixed: it is looked up at every line."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_screen", True):
            super().emit(record)


def log_files() -> list[logging.FileHandler]:
    """Where messages are kept: run.log in a run; none in a notebook or a script."""
    handlers = logging.getLogger().handlers
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def for_tables() -> RichConsole:
    """As wide as the terminal, or wide."""
    return RichConsole(width=None if sys.stdout.isatty() else WIDE)


def shown(items: Any, label: str) -> Any:
    """The same items, under a progress bar where there is a terminal to draw it on."""
    console = RichConsole(stderr=True)
    silent = not console.is_terminal
    return track(items, label, len(items), console=console, transient=True, disable=silent)
