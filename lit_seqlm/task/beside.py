"""What stands beside a property's result: whether its split is fair, and what simple models make of it."""

import copy
from typing import Any

import torch

from lit_seqlm.data.audit import audit
from lit_seqlm.data.baselines import Baselines

# Of every target too: what a table needs. The rest of a baseline's numbers can be made from its predictions.
KEPT = ("mae", "std_mae", "avg_mae_paper", "rmse", "auroc")


def audited(datamodule: Any) -> dict[str, Any]:
    """Show the audit of the split, and return it for the run's card."""
    found = audit(datamodule)
    found.report()
    return {"audit": found.as_dict()}


def baseline_numbers(baselines: Baselines, datamodule: Any, metric: Any) -> dict[str, float]:
    """``baseline/NAME/...`` of the test split, scored as the model is, by a copy of its metric."""
    metric = copy.deepcopy(metric)
    labels_NK = torch.from_numpy(datamodule.tables["test"].labels_NK)
    numbers: dict[str, float] = {}
    for name, predicted_NK in baselines.predictions(datamodule).items():
        metric.reset()
        metric.update(torch.from_numpy(predicted_NK), labels_NK, torch.arange(len(labels_NK)))
        numbers |= {
            f"baseline/{name}/{key}": value
            for key, value in metric.compute().items()
            if key.partition("/")[0] in KEPT
        }
    return numbers
