"""The schema of a table of claimed numbers, and how it is read: strictly, from YAML."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.reproduce.row import DIRECTIONS, Metric, Row, read_row
from lit_seqlm.reproduce.strict import check_keys, choice, construct, mapping, read_yaml

SCALES = ("paper", "reduced")
RESULTS = ("committed", "outputs")
LAYOUTS = ("rows", "metrics")
DIGITS = ("metric", "own")
PAPER_FILE = "paper.yaml"


@dataclass(frozen=True)
class Table:
    """Rows that are compared by the same metrics.

    Args:
        headline: the metric that effects and tolerances speak of.
        absent: the status of rows at the paper's scale that have no recipe, such as ``text not at hand``.
        layout: ``rows``: a line for each row; ``metrics``: a line for each metric, a column for each row.
        published_digits: of published numbers: as many as their ``metric`` says, or their ``own``.
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
    layout: str = "rows"
    published_digits: str = "metric"
    results: str = "committed"
    name: str = field(default="", metadata={"from_path": True})
    folder: Path = field(default=Path(), metadata={"from_path": True})

    def row(self, row_id: str) -> Row:
        return next(row for row in self.rows if row.id == row_id)

    def source(self, row: Row) -> Row:
        """The row whose runs give the numbers: itself, or the one that it is of."""
        return self.row(row.of) if row.of else row


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
    plain["rows"] = tuple(
        read_row(row, f"{where}: row {number}") for number, row in enumerate(rows, 1)
    )
    table = construct(Table, {**plain, "name": name, "folder": folder}, where)
    _check_table(table, where)
    lent = [
        replace(row, seeds=table.source(row).seeds, scale=table.source(row).scale)
        for row in table.rows
    ]
    return replace(table, rows=tuple(lent))


def table_path(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    if not path.exists() or path.name == PAPER_FILE:
        names = [p.stem for p in folder.glob("*.yaml") if p.name != PAPER_FILE]
        raise UserError(
            f"no table {name!r} in experiments/{folder.name}. {did_you_mean(name, names)}"
        )
    return path


def _check_table(table: Table, where: str) -> None:
    """What the types alone do not say: names that must exist, and choices."""
    ids = [row.id for row in table.rows]
    for row_id in ids:
        if ids.count(row_id) > 1:
            raise UserError(f"{where}: row {row_id} stands there twice; an id names one row.")
    choice(table.headline, table.metrics, f"{where}: headline")
    choice(table.results, RESULTS, f"{where}: results")
    choice(table.layout, LAYOUTS, f"{where}: layout")
    choice(table.published_digits, DIGITS, f"{where}: published_digits")
    for key, metric in table.metrics.items():
        choice(metric.direction, DIRECTIONS, f"{where}: metric {key}: direction")
    for row in table.rows:
        _check_row(table, row, f"{where}: row {row.id}")


def _check_row(table: Table, row: Row, here: str) -> None:
    choice(row.scale, SCALES, f"{here}: scale")
    if row.paper:
        for key in row.paper.value:
            choice(key, table.metrics, f"{here}: paper: value")
        for key in (*row.paper.sd, *row.paper.unverified):
            choice(key, row.paper.value, f"{here}: paper: sd or unverified")
    for key in row.expected.value if row.expected else ():
        choice(key, table.metrics, f"{here}: expected: value")
    others = [row.init_from, row.of, row.effect.against if row.effect else "", *row.needs]
    for other in filter(None, others):
        choice(other, [r.id for r in table.rows if r.id != row.id], f"{here}: other row")
    if row.of:
        _check_of(table, row, here)
    published = row.paper and table.headline in row.paper.value
    if row.tolerance is not None and not row.expected and not published:
        raise UserError(
            f"{here}: a tolerance needs a published {table.headline} to be compared with, or "
            "expected numbers."
        )
    if len(set(row.seeds)) != len(row.seeds) or not row.seeds:
        raise UserError(f"{here}: seeds must be different numbers, at least one.")
    clash = [o for o in row.overrides if o.startswith(("seed=", "experiment=", "init_from="))]
    if clash:
        raise UserError(f"{here}: {clash[0]}: use the keys seeds, experiment and init_from.")


def _check_of(table: Table, row: Row, here: str) -> None:
    """A row of other numbers of another row's runs has no recipe, and says which numbers."""
    if row.experiment or row.overrides or row.init_from or row.needs:
        raise UserError(
            f"{here}: of={row.of} has runs; leave out experiment, overrides, init_from, needs."
        )
    if not table.row(row.of).experiment:
        raise UserError(f"{here}: row {row.of} has no experiment, so no runs to read from.")
    if not row.prefix.endswith("/"):
        raise UserError(
            f"{here}: of={row.of} needs a prefix that ends with a slash, such as baseline/mean/."
        )
