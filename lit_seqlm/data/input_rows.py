"""Rows of a file that a trained model is to read: each has an answer or a reason, and none is left out."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

OK, EMPTY = "ok", "empty"
LOSSY, TOO_LONG, UNKNOWN = "lossy", "too_long", "unknown_tokens"
SHOWN = 3  # bad rows named in a summary


@dataclass(frozen=True)
class InputRow:
    """One row.

    Attributes:
        number: as a person counts, from 1; a line of column names is not counted.
        written: as the file has it.
        sequence: in the form that the tokenizer reads; None where there is none.
        status: ``ok``, or one word for what is wrong.
        reason: the same in full; of a row that is ok, what to know about it.
        name: what the file calls it; empty where it has no names.
    """

    number: int
    written: str
    sequence: str | None
    status: str
    reason: str
    name: str = ""

    @property
    def called(self) -> str:
        """For messages."""
        return f"row {self.number} ({self.name})" if self.name else f"row {self.number}"

    def refused(self, status: str, reason: str) -> "InputRow":
        """The same row without an answer."""
        return replace(self, sequence=None, status=status, reason=reason)

    def noted(self, reason: str) -> "InputRow":
        """The same row, with something to know about it."""
        return replace(self, reason=reason)


@dataclass
class Tally:
    """How many rows there were of each status, and the first of those that are not ok."""

    counts: Counter[str] = field(default_factory=Counter)
    num_unknown: int = 0  # rows that are ok but for tokens outside the vocabulary
    bad: list[InputRow] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def num_bad(self) -> int:
        return self.total - self.counts[OK]

    def add(self, rows: Iterable[InputRow]) -> None:
        for row in rows:
            self.counts[row.status] += 1
            if row.status != OK and len(self.bad) < SHOWN:
                self.bad.append(row)
            self.num_unknown += row.status == OK and row.reason.startswith(UNKNOWN)

    def told(self) -> str:
        """One line: counts, then the first bad rows with their reasons."""
        counts = [f"{self.total:,} rows, {self.counts[OK]:,} {OK}"]
        counts += [f"{n:,} {status}" for status, n in sorted(self.counts.items()) if status != OK]
        if self.num_unknown:
            counts[0] += f" ({self.num_unknown:,} of them with unknown tokens)"
        first = [f"{row.called}: {': '.join(filter(None, (row.status, row.reason)))}"
                 for row in self.bad]  # fmt: skip
        more = ["..."] if self.num_bad > len(self.bad) else []
        return ", ".join(counts) + (f" ({'; '.join([*first, *more])})" if first else "")

    def numbers(self) -> dict[str, float]:
        """The counts as metrics."""
        found = {f"rows/{status}": float(count) for status, count in self.counts.items()}
        return {"rows/ok": 0.0, **found, "rows/not_ok": float(self.num_bad)}
