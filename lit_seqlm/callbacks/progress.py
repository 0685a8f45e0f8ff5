"""A progress bar where there is a terminal to draw it on."""

import sys

from lightning.pytorch.callbacks import RichProgressBar


class TerminalProgress(RichProgressBar):
    """Lightning's rich bar; silent in a log file, where each epoch's line tells how far the run is."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        if not sys.stderr.isatty():
            self.disable()
