"""Speed and memory of the molecule encoder against its peers, side by side in one run.

    sh experiments/benchmarks/setup_molecules.sh FOLDER        once: the peers, in an environment of their own
    FOLDER/bin/python experiments/benchmarks/molecules.py [--only layer,model,batches,tokens] [--quick] [--out FILE]
    ... --only embed --run RUN                                 memory of task=embed with the weights of a run

A ratio is a time over the peer's, for the same molecules on as many threads. All take turns, each in a process that
holds its model; the median and the 10th to 90th percentile are over paired repetitions.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from encoders import BERT, FAST, FAST_KEPT, OURS, PRODUCTS, WHOLE
from measure import CONTEXT, Comparison, Worker, by_turns, seconds
from molecule_work import (
    BATCH,
    FILES,
    LAYER_WAYS,
    WAYS,
    cut,
    drawn,
    fitted,
    layer_work,
    model_work,
    molecules,
    noise,
)
from stream_memory import MOST_GROWTH, embed_memory
from text import comparison_table, header, rounded

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.data.bucketing import padding_share
from lit_seqlm.errors import UserError
from lit_seqlm.results import write_atomically

HERE = Path(__file__).resolve().parent
PARTS = ("layer", "model", "batches", "tokens", "embed")
PEERS = {"pytorch-fast-transformers": "fast_transformers", "transformers": "transformers"}
PRELOAD = [
    "torch", "torch._dynamo", "rich.progress", "hydra", "lit_seqlm.config", "lit_seqlm.model.encoder",
    "transformers.models.bert.modeling_bert", "fast_transformers.builders",
]  # fmt: skip
XL, SMALL, TINY = "linear_encoder", "linear_encoder_cpu", "linear_encoder_smoke"
LENGTHS = {17: 256, 47: 128, 100: 64, 202: 32}  # tokens of a sequence: sequences for a layer
LESS = 5  # times fewer sequences for a whole model of twelve layers
FAST_TARGET, BATCH_TARGET = round(1 / 1.5, 3), 1 / 2
EMBEDDED = (2 * 16384, 100_000)  # molecules: two windows of task=embed, and many
RATE_TARGET = 200_000  # molecules a minute
console = for_tables()


def main() -> int:
    options = parser().parse_args()
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser().error(f"--only {','.join(unknown)}: choose among {','.join(PARTS)}")
    return exit_status(lambda: measure(options, chosen))


def measure(options: argparse.Namespace, chosen: list[str]) -> None:
    """Part after part; the file is written after each, so that a later part that fails takes none with it."""
    need_peers(chosen)
    if {"batches", "tokens", "embed"} & set(chosen):
        for source in FILES:
            molecules(source, 1)  # refuses now, not in ten minutes
    CONTEXT.set_forkserver_preload(PRELOAD)
    record, started = header(options.quick), time.monotonic()
    record["versions"] |= {name: version(name) for name, of in PEERS.items() if find_spec(of)}
    rows: list[Comparison] = []
    for part in [part for part in PARTS if part in chosen]:
        rows += one_part(part, options, record)
        record["comparisons"] = [asdict(row) for row in rows]
        record["wall_seconds"] = round(time.monotonic() - started, 1)
        write_atomically(options.out, json.dumps(rounded(record), indent=1) + "\n")
    show(record, rows)
    console.print(f"written to {options.out}")


def one_part(part: str, options: argparse.Namespace, record: dict[str, Any]) -> list[Comparison]:
    """The comparisons of one part; its other numbers go into the record."""
    if part == "layer":
        return layers(options.quick)
    if part == "model":
        return models(options.quick)
    if part == "batches":
        found, record["batches"] = real_batches(options.quick)
        return found
    if part == "tokens":
        record["tokens"] = tokenisation(options.quick)
    else:
        few, many = (1_000, 2_000) if options.quick else EMBEDDED
        console.print(f"task=embed on {few:,} molecules, then on {many:,}")
        record["embed"] = embed_memory(options.run, molecules("MOSES", many), few)
    return []


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--only", default=",".join(PARTS[:-1]), help="parts, with commas between")
    made.add_argument("--run", default="", help="folder of a run, whose weights embed uses")
    made.add_argument("--quick", action="store_true", help="small: to see that it works")
    made.add_argument("--out", type=Path, default=HERE / "molecules.json")
    return made


def need_peers(chosen: list[str]) -> None:
    missing = [name for name, of in PEERS.items() if not find_spec(of)]
    if missing and {"layer", "model", "batches"} & set(chosen):
        raise UserError(
            f"{' and '.join(missing)} not installed for {sys.executable}. Make the environment once, "
            "sh experiments/benchmarks/setup_molecules.sh FOLDER, then run this with FOLDER/bin/python; "
            "or say --only tokens, which needs no peer."
        )


def layers(quick: bool) -> list[Comparison]:
    """A layer of MoLFormer-XL's size on sequences of one length: no padding for anybody.

    Over the products of its weights alone a ratio says how much of a layer is anything else.
    """
    rows = []
    for length, num_sequences in LENGTHS.items():
        for way in LAYER_WAYS:
            size = num_sequences // 16 if quick else num_sequences
            work = {n: (layer_work, n, XL, length, size, way) for n in (*WHOLE, PRODUCTS)}
            what = f"layer, {size} x {length} tokens, {way}"
            rows += against_peers(what, work, 2 if quick else 10, FAST_TARGET)
    return rows


def models(quick: bool) -> list[Comparison]:
    """MoLFormer-XL on sequences of one length: hidden states, and steps with loss, clipping and AdamW."""
    rows = []
    model = TINY if quick else XL
    for length, num_sequences in LENGTHS.items():
        table, batches = noise(max(2, num_sequences // LESS), length)
        for way in WAYS:
            names = [name for name in WHOLE if name != FAST_KEPT]
            work = {n: (model_work, n, model, table, batches, way) for n in names}
            what = f"{model}, {len(table)} x {length} tokens, {way}"
            rows += against_peers(what, work, 2 if quick else 6, FAST_TARGET)
    return rows


def real_batches(quick: bool) -> tuple[list[Comparison], dict[str, Any]]:
    """The same molecules for all: ours sorted by length, a peer's as a loader hands them out, padded."""
    rows, numbers = [], {}
    model, num_molecules = (TINY, 2 * BATCH) if quick else (SMALL, 8 * BATCH)
    for source in FILES:
        table = drawn(source, num_molecules)
        for way in WAYS:
            batches = {n: cut(n, source, table.lengths, way) for n in (OURS, FAST, BERT)}
            work = {n: (model_work, n, model, table, of, way) for n, of in batches.items()}
            what = f"{model}, {num_molecules} molecules of {source}, {way}"
            rows += against_peers(what, work, 2 if quick else 6, BATCH_TARGET, BATCH_TARGET)
            numbers[f"{source}, {way}"] = {
                "tokens": int(table.lengths.sum()),
                "padding_ours": padding_share(table.lengths, batches[OURS], 1),
                "padding_peers": padding_share(table.lengths, batches[FAST], 1),
            }
    return rows, numbers


def against_peers(
    what: str,
    work: dict[str, tuple[Any, ...]],
    repetitions: int,
    target: float,
    bert_target: float | None = None,
) -> list[Comparison]:
    """All of them by turns; freed memory is kept for all, as this program does for itself.

    Args:
        work: for each name what makes its work, and with which arguments.
    """
    workers = {name: Worker(*of, keep_memory=True) for name, of in work.items()}
    times = {name: seconds(of) for name, of in by_turns(workers, repetitions, what, 120.0).items()}
    ours = times.pop(OURS)
    targets = {FAST: target, FAST_KEPT: target, BERT: bert_target}
    return [Comparison.of(what, name, ours, of, targets.get(name)) for name, of in times.items()]


def tokenisation(quick: bool) -> dict[str, float]:
    """Canonical strings to ids on one core; to make them canonical is RDKit's time, and not in it."""
    strings = molecules("MOSES", 10_000 if quick else 100_000)
    tokenizer, rates = fitted(strings), []
    for _ in range(4 if quick else 10):
        started = time.perf_counter()
        tokenizer.encode(strings)
        rates.append(60 * len(strings) / (time.perf_counter() - started))
    return {"molecules_per_minute": median(rates[1:]), "target": RATE_TARGET}


def show(record: dict[str, Any], rows: list[Comparison]) -> None:
    versions = ", ".join(f"{name} {of}" for name, of in record["versions"].items())
    console.print(f"\n{record['device']}, {versions}, commit {record['commit']}")
    if rows:
        console.print(comparison_table(rows))
    for name, found in record.get("batches", {}).items():
        console.print(
            f"{name}: {found['tokens']:,} tokens, padding {100 * found['padding_ours']:.1f} % ours, "
            f"{100 * found['padding_peers']:.1f} % the peers'"
        )
    if "tokens" in record:
        rate = record["tokens"]["molecules_per_minute"]
        met = "met" if rate >= RATE_TARGET else "missed"
        console.print(
            f"tokenisation: {rate:,.0f} molecules a minute, target {RATE_TARGET:,}: {met}"
        )
    if "embed" in record:
        found = record["embed"]
        met = "met" if found["growth_megabytes"] <= MOST_GROWTH else "missed"
        console.print(
            f"embed: peak {found['megabytes_few']:,.0f} MB for {found['few']:,} molecules, "
            f"{found['megabytes_many']:,.0f} MB for {found['many']:,}; at most {MOST_GROWTH} more: {met}"
        )


if __name__ == "__main__":
    sys.exit(main())
