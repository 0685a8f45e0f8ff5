"""How a conversion ends on the terminal: a table, notes, and what to type next."""

from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from lit_seqlm.console import for_tables


class Told(Protocol):
    """A report of a conversion."""

    warnings: list[str]

    def rows(self) -> list[tuple[str, str]]: ...


def show(report: Told, title: str, use: str) -> None:
    """Write it out.

    Args:
        use: what can be done with the result.
    """
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", show_header=False)
    for name, value in report.rows():
        table.add_row(name, escape(value))  # [unused1] is a token, not a style
    console = for_tables()
    console.print(table, highlight=False)
    for warning in report.warnings:
        console.print(f"Note: {warning}", highlight=False, markup=False)
    console.print(use, highlight=False, markup=False)
