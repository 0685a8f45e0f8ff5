"""From where an interrupted reading goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_seqlm.search import snapshot

WORTH = 20  # times as long as a save took, to the next one


class Progress:
    """One file, written whole or not at all, at most every `every_seconds` seconds.

    A large memory takes long to write; then the saves are further apart, so that they never cost more than a
    twentieth of the time.
    """

    def __init__(self, path: Path, every_seconds: float):
        self.path, self.every_seconds = path, every_seconds
        self._due = time.monotonic() + every_seconds

    def save(self, split: str, state: Callable[[], dict[str, Any]]) -> None:
        """Write, if it is time.

        Raises:
            UserError: if it cannot be written; what was saved before is kept.
        """
        started = time.monotonic()
        if started < self._due:
            return
        snapshot.save({"split": split, **state()}, self.path, {})
        now = time.monotonic()
        self._due = now + max(self.every_seconds, WORTH * (now - started))

    def load(self, split: str) -> dict[str, Any] | None:
        """What was saved while this split was read; None where there is nothing.

        Raises:
            UserError: for a file that is damaged.
        """
        if not self.path.exists():
            return None
        saved = snapshot.load(self.path, {})
        return saved if saved["split"] == split else None

    def done(self) -> None:
        self.path.unlink(missing_ok=True)
