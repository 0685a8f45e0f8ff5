"""Where lines of the log go on a terminal."""

import logging
import sys
from typing import Any


class Console(logging.StreamHandler[Any]):
    """Writes to what sys.stdout is now: a progress bar puts itself there, and prints the lines above itself."""

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, value: Any) -> None:
        """Fixed: it is looked up at every line."""
