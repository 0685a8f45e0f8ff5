"""Figures of one or several runs: training, the output embedding, and what memories of a stream are worth."""

from lit_seqlm.plots.save import save
from lit_seqlm.plots.settings import settings
from lit_seqlm.plots.stream import along_stream, by_rank
from lit_seqlm.plots.training import curves, embedding, read_history

__all__ = [
    "along_stream",
    "by_rank",
    "curves",
    "embedding",
    "read_history",
    "save",
    "settings",
]
