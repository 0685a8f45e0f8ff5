"""What stands beside the result on sites: definitions, what is known without any sequence, and a table of both."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import move_data_to_device
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm.console import for_tables
from lit_seqlm.metrics.contact_precision import learnt_ranges
from lit_seqlm.metrics.contacts import DEFINITIONS, ESM_RANGES
from lit_seqlm.metrics.site_baseline import SiteBaseline
from lit_seqlm.task.site_scores import SiteScores

log = logging.getLogger(__name__)

ENDS = ("_low", "_high")
# Lines of contacts; of other sites, all that begins with the measure.
CONTACTS = ("p_at_l5_", "p_at_l_esm_", "p_at_l2_esm_", "auc_esm_")


def site_card(scores: SiteScores) -> dict[str, Any]:
    """What a reader of the numbers has to know."""
    card: dict[str, Any] = {"intervals": "95 %, bootstrap over distinct sequences"}
    for stage, split in scores.splits.items():
        table = scores.tables[stage]
        if table.num_distinct < table.num_proteins:
            told = f"{table.num_proteins} sequences, {table.num_distinct} distinct"
            card.setdefault("copies", {})[split] = told
    if scores.site != "pair":
        return card
    card["definitions"] = DEFINITIONS
    learnt = learnt_ranges(scores.learnt_from)
    if other := [name for name in ESM_RANGES if name not in learnt]:
        least = scores.learnt_from
        card["no_numbers"] = f"{', '.join(other)}: pairs nearer than {least} were not learnt"
    return card


def with_baseline(
    numbers: Mapping[str, float], scores: SiteScores, datamodule: Any, device: torch.device
) -> dict[str, float]:
    """The numbers with ``test/...`` of the first test, ``baseline/NAME/TEST/...``, and a table of all tests."""
    tests = [stage for stage in scores.splits if stage != "val"]
    found = dict(numbers)
    for stage in tests[:1]:
        found |= {f"test/{_rest(n)}": v for n, v in numbers.items() if n.startswith(f"{stage}/")}
    labels = datamodule.tables["train"].table.labels
    baseline = SiteBaseline(labels, scores.site, len(scores.classes))
    for stage in tests:
        prefix = f"baseline/{baseline.name}/{stage}"
        its = _of_baseline(baseline, scores, stage, datamodule, device)
        found |= {f"{prefix}/{name}": value for name, value in its.items()}
    show(found, scores, tests, baseline.name)
    return found


@torch.inference_mode()
def _of_baseline(
    baseline: SiteBaseline, scores: SiteScores, stage: str, datamodule: Any, device: torch.device
) -> dict[str, float]:
    """The same measures of it, by the same metric, of the same batches: none that a limit left unscored."""
    for batch in datamodule.exact_dataloader(scores.splits[stage]):
        if scores.kept[stage].keys().isdisjoint(batch.rows_B.tolist()):
            continue
        moved = move_data_to_device(batch, device)
        scores.update(stage, baseline.logits(batch.sites.shape).to(device), moved, keep=False)
    numbers = scores.collect(stage)
    return {name: value for name, value in numbers.items() if not name.startswith("recall/")}


def show(numbers: Mapping[str, float], scores: SiteScores, tests: list[str], name: str) -> None:
    """A line for each measure of each test; a warning where the model is no better than the baseline."""
    starts = CONTACTS if scores.site == "pair" else (scores.measure,)
    table = Table("test", "measure", "model", "95 %", name, box=SIMPLE_HEAD)
    for stage in tests:
        for key, value in numbers.items():
            measure = _rest(key)
            shown = key.startswith(f"{stage}/") and measure.startswith(starts)
            if not shown or measure.endswith(ENDS):
                continue
            ends = [numbers.get(f"{key}{end}") for end in ENDS]
            interval = "" if None in ends else f"{ends[0]:.3f} to {ends[1]:.3f}"
            other = numbers.get(f"baseline/{name}/{key}")
            told = "-" if other is None else f"{other:.4f}"
            table.add_row(stage, measure, f"{value:.4f}", interval, told)
    for_tables().print(table, highlight=False, markup=False)
    own, least = numbers.get("test/error"), numbers.get(f"baseline/{name}/{tests[0]}/error")
    if own is not None and least is not None and own >= least:
        log.warning("the model is no better than %s alone: nothing was learnt of sequences", name)


def _rest(name: str) -> str:
    return name.partition("/")[2]
