"""What a person sees of an evaluation: a table at the end, and figures in the run's folder."""

import logging
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm import plots
from lit_seqlm.console import for_tables
from lit_seqlm.metrics.bootstrap import Interval
from lit_seqlm.plots.settings import tuned
from lit_seqlm.task.report import Report

log = logging.getLogger(__name__)

FEWEST = 1000  # predictions of which a curve can tell something


def show(report: Report, loggers: list[Any], folder: Path, datamodule: Any) -> None:
    """Metrics to the loggers; where there are memories a table, and plots/*.png in the run's folder."""
    for logger in loggers:
        logger.log_metrics(report.metrics)
    if report.mixings:
        for_tables().print(_table(report), highlight=False)
        if said := _new_words(report.metrics):
            log.info(said)
        run, text = "/".join(folder.parts[-2:]), datamodule.source.name
        valid, test = (f"{run}, {split} text of {text}" for split in ("validation", "test"))
        for name, figure in _figures(report, valid, test, len(datamodule.tokenizer)).items():
            plots.save(figure, name, folder, loggers)


def _table(report: Report) -> Table:
    """A line for each way to score."""
    table = Table("", "val ppl", "test ppl", "change of test ppl (95 %)", box=SIMPLE_HEAD)
    for name in (report.base, *report.mixings):
        ppl = [f"{report.metrics[f'{stage}/ppl_{name}']:.2f}" for stage in ("val", "test")]
        table.add_row(name, *ppl, _shown(report.changes["test"].get(name)))
    return table


def _new_words(metrics: dict[str, float]) -> str:
    """Perplexities of the test's known and new words, where these are told apart."""
    kinds = ("known", "first", "repeat", "unk")
    parts = [
        f"{kind} {metrics[key]:,.0f} ({metrics[f'test/share_{kind}_words']:.1%})"
        for kind in kinds
        if (key := f"test/ppl_{kind}_words") in metrics
    ]
    return (
        f"test by words: {', '.join(parts)}; not comparable with another task.new_words"
        if parts
        else ""
    )


def _shown(change: Interval | None) -> str:
    if change is None:
        return ""
    known = (
        " (too short for an interval)"
        if math.isnan(change.low)
        else f" ({change.low:+.1f} to {change.high:+.1f})"
    )
    return f"{change.mean:+.1f} %{known}"


def _figures(report: Report, valid: str, test: str, vocab_size: int) -> dict[str, Figure]:
    """Of the test stream, and of what was tuned on validation if anything was."""
    nlls = report.nlls["test"]
    if len(report.words_N) < FEWEST:
        log.info("no plots: the test text has under %s predictions", f"{FEWEST:,}")
        return {}
    figures = {
        "memories": plots.along_stream(nlls, test),
        "frequency": plots.by_rank(nlls, report.words_N, vocab_size, test),
    }
    tried = [vars(entry) for entry in report.tried]
    return figures | ({"settings": plots.settings(tried, valid)} if tuned(tried) else {})
