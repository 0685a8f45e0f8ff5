"""The lines of a table of claimed numbers: recipes, and what was published or is expected of them."""

from dataclasses import dataclass, field
from typing import Any

from lit_seqlm.reproduce.strict import construct, mapping

DIRECTIONS = ("lower", "higher", "none")


@dataclass(frozen=True)
class Metric:
    """One number of result.json: how it is called, in what unit, and which way is better, if any (``none``)."""

    label: str
    direction: str
    unit: str = ""
    digits: int = 2


@dataclass(frozen=True)
class Reference:
    """What somebody else published, by metric, and where it stands.

    Args:
        sd: the standard deviations that stand there too.
        unverified: metrics whose numbers were not read there, where the others were.
    """

    value: dict[str, float]
    where: str
    verified: bool
    sd: dict[str, float] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What a row should give, by metric: no publication, and how it is known."""

    value: dict[str, float]
    where: str


@dataclass(frozen=True)
class Effect:
    """A row's change against another row, in percent of the headline metric.

    Without `paper_percent` the paper's effect is that of the two rows' published values.
    """

    against: str
    paper_percent: float | None = None
    paper_where: str = ""
    paper_verified: bool = True


@dataclass(frozen=True)
class Row:
    """One line: a recipe and its seeds, beside what was published for it.

    Args:
        experiment: a recipe by name; none is a row that this program cannot run yet.
        init_from: id of the row whose run gives the weights: its only seed's, or the same seed's.
        needs: ids of further rows whose runs must be there first.
        of: id of the row in whose runs these numbers stand, instead of runs of its own; seeds and scale are that row's.
        prefix: what the numbers' names begin with there, where a metric's name begins with ``test/``.
        tolerance: percent by which all measured numbers may leave the expected ones or, without
            those, the headline the published one.
    """

    id: str
    label: str
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    init_from: str = ""
    needs: tuple[str, ...] = ()
    scale: str = "paper"
    of: str = ""
    prefix: str = ""
    paper: Reference | None = None
    expected: Expected | None = None
    tolerance: float | None = None
    effect: Effect | None = None


def read_row(plain: Any, where: str) -> Row:
    """A row from YAML; that its names exist is the table's to check."""
    if isinstance(plain, dict) and "id" in plain:
        where = where.rpartition(" ")[0] + f" {plain['id']}"
    values = dict(mapping(plain, where))
    if "paper" in values:
        values["paper"] = construct(Reference, values["paper"], f"{where}: paper")
    if "expected" in values:
        values["expected"] = construct(Expected, values["expected"], f"{where}: expected")
    if "effect" in values:
        values["effect"] = construct(Effect, values["effect"], f"{where}: effect")
    return construct(Row, values, where)
