"""What stands beside a property's result: whether its split is fair, and what simple models make of it."""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm.console import for_tables
from lit_seqlm.data.audit import audit
from lit_seqlm.data.baselines import Baselines
from lit_seqlm.data.targets import Target

log = logging.getLogger(__name__)

# Of every target too: what a table needs, with the target's own measures and the ends of their intervals. The rest can
# be made from predictions.
KEPT = ("mae", "std_mae", "avg_mae_paper", "rmse", "auroc")
TITLES = {"mae": "MAE", "spearman": "Spearman", "auroc": "AUROC"}
MEANS = {"regression": "std_mae", "classification": "auroc"}
KNOWS_NOTHING = {"regression": "mean", "classification": "prior"}


def audited(datamodule: Any) -> dict[str, Any]:
    """Show the audit of the split, and return it for the run's card."""
    found = audit(datamodule)
    found.report()
    return {"audit": found.as_dict()}


def with_baselines(
    metrics: Mapping[str, float], baselines: Baselines, datamodule: Any, task: Any
) -> dict[str, float]:
    """The test's numbers with ``baseline/NAME/...`` of the same rows, and both shown in a table."""
    numbers = {**metrics, **baseline_numbers(baselines, datamodule, task.scores.labels["test"])}
    show_beside(numbers, task.targets, task.kind)
    return numbers


def baseline_numbers(baselines: Baselines, datamodule: Any, metric: Any) -> dict[str, float]:
    """``baseline/NAME/...`` of the test split, scored as the model is, by a copy of its metric."""
    metric = copy.deepcopy(metric)
    labels_NK = torch.from_numpy(datamodule.tables["test"].labels_NK)
    own = {*KEPT, *(measure for target in datamodule.targets for measure in target.measures)}
    kept = {f"{measure}{end}" for measure in own for end in ("", "_low", "_high")}
    numbers: dict[str, float] = {}
    for name, predicted_NK in baselines.predictions(datamodule).items():
        metric.reset()
        metric.update(torch.from_numpy(predicted_NK), labels_NK, torch.arange(len(labels_NK)))
        numbers |= {
            f"baseline/{name}/{key}": value
            for key, value in metric.compute().items()
            if key.partition("/")[0] in kept
        }
    return numbers


def show_beside(numbers: Mapping[str, float], targets: Sequence[Target], kind: str) -> None:
    """A line for each target, a column for the model and each baseline; a warning where the model is no better."""
    names = dict.fromkeys(key.split("/")[1] for key in numbers if key.startswith("baseline/"))
    columns = {"model": "test/"} | {name: f"baseline/{name}/" for name in names}
    shown, mean = targets[0].measures[0] if kind == "regression" else "auroc", MEANS[kind]
    table = Table(f"test {TITLES[shown]}", *columns, box=SIMPLE_HEAD, title_justify="left")
    for target in targets:
        unit = f" [{target.unit}]" if target.unit and shown == "mae" else ""
        values = [numbers.get(f"{prefix}{shown}/{target.name}") for prefix in columns.values()]
        table.add_row(f"{target.name}{unit}", *map(_number, values))
    if len(targets) > 1:
        label = "mean std-MAE" if kind == "regression" else "mean"
        table.add_row(label, *(_number(numbers.get(prefix + mean)) for prefix in columns.values()))
    for_tables().print(table, highlight=False, markup=False)
    least = numbers.get(f"baseline/{KNOWS_NOTHING[kind]}/{mean}")
    own = numbers.get(f"test/{mean}")
    if least is not None and own is not None:
        worse = own >= least if kind == "regression" else own <= least
        if worse:
            log.warning(
                "the model is no better than one that knows nothing of its input: nothing was learnt"
            )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
