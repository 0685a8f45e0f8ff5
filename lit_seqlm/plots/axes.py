"""What all figures share: how axes look, and colours and marks that can be told apart."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

# Okabe and Ito 2008: told apart by colour-blind readers too. Black is the model without a memory.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")


def look(number: int) -> dict[str, Any]:
    """Colour, mark and line of the so-many-th thing drawn; two of the three tell any of 24 apart."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKS[number % len(MARKS)],
        "linestyle": LINES[number % len(LINES)],
    }


def plain_ticks(axes: Axes) -> None:
    """100, 150, 200 instead of powers of ten; fewer where the axis spans a factor of 30."""
    low, high = axes.get_ylim()
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high < 30 * low else (1, 2, 5)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, which="major")
