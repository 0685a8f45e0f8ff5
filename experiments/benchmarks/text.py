"""Speed and memory of the text family against its peers, side by side in one run.

    python experiments/benchmarks/text.py [--only step,margin,loss,startup,alloc] [--quick] [--out FILE]

A ratio is a time over the peer's. Both take turns, so that whatever else the machine does hits both; the median and
the 10th to 90th percentile are over paired repetitions.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from loss import allocation, loss_times, peak_memory
from measure import CONTEXT, Comparison, spread
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from lit_seqlm.console import for_tables
from lit_seqlm.process import device_name
from lit_seqlm.results import git_state, write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PARTS = ("step", "margin", "loss", "startup", "alloc")
STARTUP_TARGET = 1.5  # seconds more than importing Hydra
PACKAGES = ("torch", "lightning", "hydra-core", "numpy")
PRELOAD = ["torch", "rich.progress", "lit_seqlm.model.layers.fused_nll", "lit_seqlm.process"]
console = for_tables()


def main() -> None:
    options = parser().parse_args()
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser().error(f"--only {','.join(unknown)}: choose among {','.join(PARTS)}")
    quieten()
    CONTEXT.set_forkserver_preload(PRELOAD)
    record, comparisons, started = header(options.quick), [], time.monotonic()
    if "startup" in chosen:
        record["startup"] = startup(options.quick)
    if "step" in chosen:
        from step import whole_step  # not above: every worker imports this file, but not Lightning

        rows, record["lightning"] = whole_step(options.quick)
        comparisons += rows
    if "margin" in chosen:
        from step import adversarial_step

        comparisons += adversarial_step(options.quick)
    if "alloc" in chosen:
        rows, record["page_faults"] = allocation(options.quick)
        comparisons += rows
    if "loss" in chosen:
        comparisons += loss_times(options.quick)
        record["peak_memory"] = peak_memory(options.quick)
    record["comparisons"] = [asdict(row) for row in comparisons]
    record["wall_seconds"] = round(time.monotonic() - started, 1)
    show(record, comparisons)
    write_atomically(options.out, json.dumps(rounded(record), indent=1) + "\n")
    console.print(f"written to {options.out}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    made.add_argument("--quick", action="store_true", help="few repetitions: to see that it works")
    made.add_argument("--out", type=Path, default=HERE / "text.json")
    return made


def quieten() -> None:
    """Lightning's banners."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def header(quick: bool) -> dict[str, Any]:
    commit, dirty = git_state()
    return {
        "device": device_name("cpu"),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit,
        "dirty": dirty,
        "quick": quick,
    }


def startup(quick: bool) -> dict[str, Any]:
    """Seconds until `run.py --help` has answered, and until Hydra alone is imported."""
    commands = {
        "run.py --help": [sys.executable, str(ROOT / "run.py"), "--help"],
        "import hydra": [sys.executable, "-c", "import hydra"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in track(range(3 if quick else 9), description="start-up"):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    more = [ours - theirs for ours, theirs in zip(*seconds.values(), strict=True)][1:]
    low, high = spread(more)
    medians = {name: median(times[1:]) for name, times in seconds.items()}
    return medians | {
        "seconds_more": median(more),
        "low": low,
        "high": high,
        "target": STARTUP_TARGET,
    }


def show(record: dict[str, Any], comparisons: list[Comparison]) -> None:
    console.print(
        f"\n{record['device']}, torch {record['versions']['torch']}, commit {record['commit']}"
    )
    if comparisons:
        console.print(comparison_table(comparisons))
    if "lightning" in record:
        overhead = record["lightning"]["overhead_ms_per_step"]
        console.print(f"The program adds {overhead:.2f} ms to every step, whatever the model.\n")
    if "startup" in record:
        found = record["startup"]
        console.print(
            f"Start-up: run.py --help {found['run.py --help']:.2f} s, import hydra {found['import hydra']:.2f} s, "
            f"{found['seconds_more']:.2f} s more ({found['low']:.2f} to {found['high']:.2f}), "
            f"target at most {STARTUP_TARGET}: {verdict(found['seconds_more'], STARTUP_TARGET)}\n"
        )
    if "page_faults" in record:
        console.print("Pages handed out by the kernel, each turn:")
        for name, faults in record["page_faults"].items():
            console.print(f"  {faults:>8,}  {name}")
    if "peak_memory" in record:
        console.print(memory_table(record["peak_memory"]))


def comparison_table(comparisons: list[Comparison]) -> Table:
    table = Table(
        "what",
        "against",
        "ratio",
        "10th-90th",
        "target",
        "",
        "ms",
        "against ms",
        "n",
        box=SIMPLE_HEAD,
    )
    for row in comparisons:
        table.add_row(
            row.what,
            row.against,
            f"{row.ratio:.3f}",
            f"{row.low:.3f}-{row.high:.3f}",
            f"{row.target}" if row.target else "",
            verdict(row.ratio, row.target) if row.target else "",
            f"{row.milliseconds:.1f}",
            f"{row.milliseconds_against:.1f}",
            str(row.repetitions),
        )
    return table


def verdict(value: float, target: float) -> str:
    return "met" if value <= target else "missed"


def memory_table(found: list[dict[str, Any]]) -> Table:
    """Peak memory above the inputs, a line for each vocabulary and number of positions."""
    losses = list(dict.fromkeys(entry["loss"] for entry in found))
    table = Table("V", "N", "one N x V, MB", "one V x D, MB", *losses, box=SIMPLE_HEAD)
    table.title = "Peak memory above the inputs, MB"
    lines: dict[tuple[int, int], dict[str, Any]] = {}
    for entry in found:
        lines.setdefault((entry["vocab_size"], entry["num_rows"]), {})[entry["loss"]] = entry
    for (vocab_size, num_rows), line in lines.items():
        one = next(iter(line.values()))
        sizes = [f"{one[name]:,.0f}" for name in ("logits_megabytes", "weight_megabytes")]
        peaks = [f"{line[name]['megabytes']:,.0f}" if name in line else "-" for name in losses]
        table.add_row(f"{vocab_size:,}", f"{num_rows:,}", *sizes, *peaks)
    return table


def rounded(value: Any) -> Any:
    """Four digits say all that was measured."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
