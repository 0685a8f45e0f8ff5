"""The schema of a table of claimed numbers, and how it is read: strictly, from YAML."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.reproduce.strict import check_keys, choice, construct, mapping, read_yaml

SCALES = ("paper", "reduced")
DIRECTIONS = ("lower", "higher", "none")
RESULTS = ("committed", "outputs")
PAPER_FILE = "paper.yaml"


@dataclass(frozen=True)
class Metric:
    """One number of result.json: how it is called, in what unit, and which way is better, if any (``none``)."""

    label: str
    direction: str
    unit: str = ""
    digits: int = 2


@dataclass(frozen=True)
class Reference:
    """What somebody else published, by metric, and where it stands."""

    value: dict[str, float]
    where: str
    verified: bool


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
        tolerance: percent by which the measured headline may leave the published one.
    """

    id: str
    label: str
    experiment: str = ""
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    init_from: str = ""
    needs: tuple[str, ...] = ()
    scale: str = "paper"
    paper: Reference | None = None
    tolerance: float | None = None
    effect: Effect | None = None


@dataclass(frozen=True)
class Table:
    """Rows that are compared by the same metrics.

    Args:
        headline: the metric that effects and tolerances speak of.
        absent: the status of rows at the paper's scale that have no recipe, such as ``text not at hand``.
        results: ``committed``: from experiments/PAPER/results; ``outputs``: from the run folders of
            this machine.
    """

    title: str
    headline: str
    metrics: dict[str, Metric]
    rows: tuple[Row, ...]
    note: str = ""
    after: str = ""
    absent: str = "not implemented"
    results: str = "committed"
    name: str = field(default="", metadata={"from_path": True})
    folder: Path = field(default=Path(), metadata={"from_path": True})

    def row(self, row_id: str) -> Row:
        return next(row for row in self.rows if row.id == row_id)


@dataclass(frozen=True)
class Paper:
    """What stands above the tables of one paper, and the tables' order."""

    title: str
    reference: str
    tables: tuple[str, ...]
    note: str = ""


def load_paper(folder: Path) -> Paper:
    """Read experiments/PAPER/paper.yaml.

    Raises:
        UserError: for an unknown paper, an unknown or missing key, or a table that is not there.
    """
    if not (folder / PAPER_FILE).exists():
        papers = [path.parent.name for path in folder.parent.glob(f"*/{PAPER_FILE}")]
        raise UserError(
            f"no paper {folder.name!r} in experiments/. {did_you_mean(folder.name, papers)}"
        )
    paper = construct(Paper, read_yaml(folder / PAPER_FILE), f"{folder.name}/{PAPER_FILE}")
    for name in paper.tables:
        table_path(folder, name)
    return paper


def load_table(folder: Path, name: str) -> Table:
    """Read experiments/PAPER/TABLE.yaml.

    Raises:
        UserError: with the place and the accepted names.
    """
    where = f"{folder.name}/{name}.yaml"
    plain = read_yaml(table_path(folder, name))
    check_keys(plain, Table, where)
    metrics = mapping(plain.get("metrics"), f"{where}: metrics")
    plain["metrics"] = {
        key: construct(Metric, value, f"{where}: metric {key}") for key, value in metrics.items()
    }
    rows = plain.get("rows")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{where}: rows must be a list with at least one row.")
    plain["rows"] = tuple(_row(row, f"{where}: row {number}") for number, row in enumerate(rows, 1))
    table = construct(Table, {**plain, "name": name, "folder": folder}, where)
    _check_table(table, where)
    return table


def table_path(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    if not path.exists() or path.name == PAPER_FILE:
        names = [p.stem for p in folder.glob("*.yaml") if p.name != PAPER_FILE]
        raise UserError(
            f"no table {name!r} in experiments/{folder.name}. {did_you_mean(name, names)}"
        )
    return path


def _row(plain: Any, where: str) -> Row:
    if isinstance(plain, dict) and "id" in plain:
        where = where.rpartition(" ")[0] + f" {plain['id']}"
    values = dict(mapping(plain, where))
    if "paper" in values:
        values["paper"] = construct(Reference, values["paper"], f"{where}: paper")
    if "effect" in values:
        values["effect"] = construct(Effect, values["effect"], f"{where}: effect")
    return construct(Row, values, where)


def _check_table(table: Table, where: str) -> None:
    """What the types alone do not say: names that must exist, and choices."""
    ids = [row.id for row in table.rows]
    for row_id in ids:
        if ids.count(row_id) > 1:
            raise UserError(f"{where}: row {row_id} stands there twice; an id names one row.")
    choice(table.headline, table.metrics, f"{where}: headline")
    choice(table.results, RESULTS, f"{where}: results")
    for key, metric in table.metrics.items():
        choice(metric.direction, DIRECTIONS, f"{where}: metric {key}: direction")
    for row in table.rows:
        here = f"{where}: row {row.id}"
        choice(row.scale, SCALES, f"{here}: scale")
        for key in row.paper.value if row.paper else ():
            choice(key, table.metrics, f"{here}: paper: value")
        for other in (
            *row.needs,
            *([row.init_from] if row.init_from else []),
            *([row.effect.against] if row.effect else []),
        ):
            choice(other, [i for i in ids if i != row.id], f"{here}: other row")
        if row.tolerance is not None and (
            row.paper is None or table.headline not in row.paper.value
        ):
            raise UserError(
                f"{here}: a tolerance needs a published {table.headline} to be compared with."
            )
        if len(set(row.seeds)) != len(row.seeds) or not row.seeds:
            raise UserError(f"{here}: seeds must be different numbers, at least one.")
        clash = [o for o in row.overrides if o.startswith(("seed=", "experiment=", "init_from="))]
        if clash:
            raise UserError(f"{here}: {clash[0]}: use the keys seeds, experiment and init_from.")
