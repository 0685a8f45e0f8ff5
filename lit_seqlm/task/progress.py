"""From where an interrupted reading goes on."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_seqlm.search import snapshot
from lit_seqlm.task.stream_pass import StreamPass

log = logging.getLogger(__name__)

TELL = 30.0  # seconds between lines in a log
WORTH = 20  # times as long as a save took, to the next one


class Progress:
    """One file, written whole or not at all, at most every `every_seconds` seconds.

    A large memory takes long to write; then the saves are further apart, so that they never cost more than a
    twentieth of the time.
    """

    def __init__(self, path: Path, every_seconds: float):
        self.path, self.every_seconds = path, every_seconds
        self._due = time.monotonic() + every_seconds
        self._told = time.monotonic()
        self.limited = (
            False  # a part of a text is read anew: where it ends is counted from its beginning
        )

    def after_batch(self, stream: StreamPass, state: Callable[[], dict[str, Any]]) -> None:
        """Write, and tell how far the reading is, if it is time.

        Raises:
            UserError: if it cannot be written; what was saved before is kept.
        """
        started = time.monotonic()
        if started > self._told + TELL and not sys.stderr.isatty():  # a terminal has a bar
            self._told = started
            read, total = stream.num_read, stream.reading.num_predictions
            log.info("%s: %s of %s tokens", stream.reading.split, f"{read:,}", f"{total:,}")
        if started < self._due or self.limited:
            return
        snapshot.save({"split": stream.reading.split, **state()}, self.path, {})
        now = time.monotonic()
        self._due = now + max(self.every_seconds, WORTH * (now - started))

    def load(self, split: str) -> dict[str, Any] | None:
        """What was saved while this split was read; None where there is nothing.

        Raises:
            UserError: for a file that is damaged.
        """
        if not self.path.exists() or self.limited:
            return None
        saved = snapshot.load(self.path, {})
        if saved["split"] != split:
            return None
        num_read = len(saved["stream"]["record"]["static"])
        log.info("%s: going on after %s tokens", split, f"{num_read:,}")
        return saved

    def done(self) -> None:
        self.path.unlink(missing_ok=True)
