"""Try other kernels, widths and k on the neighbours that an evaluation kept: seconds, no model.

    python run.py task=evaluate init_from=RUN cache=unbounded task.keep_neighbours=256
    python experiments/sweep_cache.py THAT_RUN k=64,256 kernel=gaussian,epanechnikov bandwidth_scale=0.3,1

Options: k, kernel, bandwidth, bandwidth_scale and theta, with one value or several; what is not named is as the run
found best (k: at most what was kept). Each setting has its own best weight on validation.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm.cache.kernel_sweep import TUNABLE, WORDS, KernelSweep, what_counts
from lit_seqlm.cache.mixing.settings import TriedSetting
from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.metrics.perplexity import exp

READ = {
    "k": (int, "whole numbers"),
    "bandwidth_scale": (float, "numbers"),
    "theta": (float, "numbers"),
}


def main() -> int:
    options = parser().parse_intermixed_args()
    return exit_status(lambda: sweep(options))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folder", metavar="RUN_FOLDER", type=Path)
    made.add_argument("grid", metavar="OPTION=VALUE,VALUE", nargs="*")
    made.add_argument("--memory", help="by its name in the run, where several kept neighbours")
    made.add_argument("--test", action="store_true", help="score the best setting on test too")
    return made


def sweep(options: argparse.Namespace) -> None:
    grid = read_grid(options.grid)
    found = KernelSweep(options.folder, options.memory)
    tried = found.run(grid)
    static = exp(-float(found.valid.static_N.mean()))
    console = for_tables()
    console.print(table(found.memory, static, tried), highlight=False)
    console.print(
        f"{len(tried)} settings on {len(found.valid):,} tokens of validation; static {static:.2f}. "
        "Nothing was chosen on test.",
        highlight=False,
    )
    if options.test:
        before, after = found.test(tried[0])
        change = 100 * (after / before - 1)
        console.print(
            f"The first of them on test: {after:.2f}; static {before:.2f} ({change:+.1f} %). Once: another look "
            "at test after another choice would be tuning on it.",
            highlight=False,
        )


def read_grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """From the command line; UserError for what is no OPTION=VALUE, not known, or not of its type."""
    grid: dict[str, list[Any]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        if not equals or not values:
            raise UserError(f"{word}: say OPTION=VALUE or OPTION=VALUE,VALUE, as in k=64,256.")
        if key not in TUNABLE:
            raise UserError(f"{key}: there is no such option. {did_you_mean(key, TUNABLE)}")
        if key in grid:
            raise UserError(f"{key} stands there twice. Say {key}=VALUE,VALUE.")
        kind, told = READ.get(key, (str, "words"))
        try:
            grid[key] = [kind(value) for value in values.strip("[]").split(",")]
        except ValueError:
            raise UserError(f"{word}: {key} takes {told}.") from None
    return grid


def table(memory: str, static: float, tried: Sequence[TriedSetting]) -> Table:
    """A line a setting; a dash where its kernel reads no such option."""
    shown = Table(title=f"{memory}, the best first", box=SIMPLE_HEAD, title_justify="left")
    for name in (*TUNABLE, "best weight", "val ppl", "change"):
        shown.add_column(name.replace("_", " "), justify="left" if name in WORDS else "right")
    for one in tried:
        counts = what_counts(one.setting)
        values = [str(one.setting[key]) if key in counts else "-" for key in TUNABLE]
        change = f"{100 * (one.ppl / static - 1):+.1f} %"
        shown.add_row(*values, f"{one.lam:.3f}", f"{one.ppl:.2f}", change)
    return shown


if __name__ == "__main__":
    sys.exit(main())
