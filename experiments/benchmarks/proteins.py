"""Speed of packed proteins against padded ones, side by side in one run; speed and memory of making shards.

    FOLDER/bin/python experiments/benchmarks/proteins.py [--only lengths,equal,shards] [--quick] [--out FILE]

FOLDER is the environment of setup_molecules.sh. Of its peers transformers alone is needed, so one with this program and
pip install "transformers>=5,<6" does as well; --only shards needs none, but litdata and 4 GB for a while.

A ratio is a time over the peer's, for the same proteins on as many threads. All take turns, each in a process that
holds its model; the median and the 10th to 90th percentile are over paired repetitions. Tokens are of proteins, never
of padding. What else differs between the systems: see protein_models.py.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import CONTEXT, Comparison, Worker, by_turns, seconds
from protein_models import (
    BERT,
    BERT_BY_LENGTH,
    ESM,
    PACKED,
    PADDED,
    Speed,
    batches_of,
    training,
)
from protein_shards import check, memory_table, shard_memory, shard_speed, speed_table
from rich.box import SIMPLE_HEAD
from rich.table import Table
from text import comparison_table, header, rounded

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.results import write_atomically
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

HERE = Path(__file__).resolve().parent
PARTS = ("lengths", "equal", "shards")
SAMPLE = "proteins/swissprot_go/swissprot_go_201401_sample100k.tsv.gz"
LONGEST = 511  # residues, as the CPU presets
EQUAL = {64: 64, 128: 32, 256: 16, 512: 8}  # tokens of a sequence: sequences
REAL_TARGET, EQUAL_TARGET = round(1 / 1.5, 3), 1.0
PEER = "transformers"
SAME = (PACKED, PADDED, BERT, ESM)
Found = tuple[list[Comparison], list[Speed]]
PRELOAD = [
    "torch", "torch._dynamo", "rich.progress", "hydra", "lit_seqlm.config", "lit_seqlm.model.bert",
    "transformers.models.bert.modeling_bert", "transformers.models.esm.modeling_esm",
]  # fmt: skip
console = for_tables()


class Sizes(NamedTuple):
    """How much is measured: `few` and `many` sequences must take the same memory, `file` are made into shards."""

    models: tuple[str, ...]
    proteins: int
    turns_lengths: int
    turns_equal: int
    file: int
    turns_shards: int
    few: int
    many: int


# 500,000 proteins: nearly Swiss-Prot. Of fewer than 20,000 hardly one would be held out to validate on.
FULL = Sizes(("mlm_small", "mlm_tiny"), 128, 6, 12, 500_000, 3, 1_000_000, 10_000_000)
SMALL = Sizes(("mlm_nano",), 48, 2, 2, 2_000, 2, 20_000, 40_000)


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no made file stays behind
    options = parser().parse_args()
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser().error(f"--only {','.join(unknown)}: choose among {','.join(PARTS)}")
    return exit_status(lambda: measure(options, chosen))


def measure(options: argparse.Namespace, chosen: list[str]) -> None:
    """Part after part; the file is written after each, so that a later part that fails takes none with it."""
    need_peer(chosen)
    sizes = SMALL if options.quick else FULL
    if "shards" in chosen:
        check(sizes.many)
    table = proteins(sizes.proteins) if "lengths" in chosen else None
    CONTEXT.set_forkserver_preload(PRELOAD)
    record, started = header(options.quick), time.monotonic()
    record["versions"] |= {name: version(name) for name in (PEER, "litdata") if find_spec(name)}
    record |= {"comparisons": [], "speeds": []}
    for part in [part for part in PARTS if part in chosen]:
        if part == "shards":
            record["shards"] = shards(sizes)
        else:
            rows, speeds = lengths(table, sizes) if part == "lengths" else equal(sizes)
            record["comparisons"] += map(asdict, rows)
            record["speeds"] += map(asdict, speeds)
        record["wall_seconds"] = round(time.monotonic() - started, 1)
        write_atomically(options.out, json.dumps(rounded(record), indent=1) + "\n")
    show(record)
    console.print(f"written to {options.out}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    made.add_argument("--quick", action="store_true", help="small: to see that it works")
    made.add_argument("--out", type=Path, default=HERE / "proteins.json")
    return made


def need_peer(chosen: list[str]) -> None:
    if not find_spec(PEER) and {"lengths", "equal"} & set(chosen):
        raise UserError(
            f'{PEER} is not installed for {sys.executable}: pip install "transformers>=5,<6" there, or make the '
            "environment of sh experiments/benchmarks/setup_molecules.sh FOLDER and use FOLDER/bin/python; or say "
            "--only shards, which needs no peer."
        )


def proteins(number: int) -> TokenTable:
    """A random part of the Swiss-Prot sample: those of up to 511 residues.

    Raises:
        UserError: where the file is not there.
    """
    path = Path(os.environ.get("LIT_SEQLM_DATA", ""), SAMPLE)
    if not path.is_file():
        raise UserError(f"there is no {path}: let LIT_SEQLM_DATA name the folder with the data.")
    sequences = [
        found.sequence for found in read_records(str(path)) if len(found.sequence) <= LONGEST
    ]
    chosen = np.random.default_rng(0).choice(len(sequences), number, replace=False)
    return AminoAcidTokenizer("cls", "keep", False).encode([sequences[one] for one in chosen])


def lengths(table: TokenTable | None, sizes: Sizes) -> Found:
    """Training steps over real proteins: packed, padded by length, and the peers' random batches."""
    assert table is not None
    found: Found = ([], [])
    for model in sizes.models:
        what = f"{model}, {len(table)} proteins of Swiss-Prot, training step"
        names = (*SAME, BERT_BY_LENGTH)
        _add(found, by_turns_of(names, what, model, table, sizes.turns_lengths, REAL_TARGET))
    return found


def equal(sizes: Sizes) -> Found:
    """Training steps over sequences of one length: nothing is padded for anybody."""
    found: Found = ([], [])
    for model in sizes.models:
        for length, number in EQUAL.items():
            ids = np.random.default_rng(0).integers(5, 30, (number, length))
            ids[:, 0] = 2
            what = f"{model}, {number} x {length} tokens, training step"
            table = TokenTable.of(ids)
            _add(found, by_turns_of(SAME, what, model, table, sizes.turns_equal, EQUAL_TARGET))
    return found


def by_turns_of(
    names: tuple[str, ...], what: str, model: str, table: TokenTable, times: int, target: float
) -> Found:
    """Ours over each of the others, and each by itself; freed memory is kept for all, as this program does it."""
    workers = {name: Worker(training, name, model, table, keep_memory=True) for name in names}
    found = {name: seconds(of) for name, of in by_turns(workers, times, what, 240.0).items()}
    targets = {BERT: target, ESM: target}
    ours = found[PACKED]
    rows = [
        Comparison.of(what, name, ours, of, targets.get(name))
        for name, of in found.items()
        if name != PACKED
    ]
    speeds = [Speed.of(what, name, batches_of(name, table), of) for name, of in found.items()]
    return rows, speeds


def _add(found: Found, more: Found) -> None:
    found[0].extend(more[0])
    found[1].extend(more[1])


def shards(sizes: Sizes) -> dict[str, Any]:
    """FASTA to shards by one process and by as many as there are cores, then memory at two sizes."""
    workers = tuple(sorted({1, os.cpu_count() or 1}))
    return {
        "speed": shard_speed(sizes.file, workers, sizes.turns_shards),
        "memory": shard_memory(sizes.few, sizes.many),
    }


def show(record: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {of}" for name, of in record["versions"].items())
    console.print(f"\n{record['device']}, {versions}, commit {record['commit']}")
    if record["comparisons"]:
        console.print("Times over the others':")
        console.print(comparison_table([Comparison(**row) for row in record["comparisons"]]))
        console.print("Tokens of proteins that each learns from:")
        console.print(speeds_table([Speed(**row) for row in record["speeds"]]))
    if "shards" in record:
        console.print(speed_table(record["shards"]["speed"]))
        console.print(memory_table(record["shards"]["memory"]))


def speeds_table(speeds: list[Speed]) -> Table:
    table = Table(
        "what", "system", "tokens/s", "10th-90th", "tokens", "steps", "masked", "padding", "logits at",
        box=SIMPLE_HEAD,
    )  # fmt: skip
    for row in speeds:
        table.add_row(
            row.what,
            row.system,
            f"{row.tokens_per_second:,.0f}",
            f"{row.low:,.0f}-{row.high:,.0f}",
            f"{row.tokens:,}",
            str(row.steps),
            f"{100 * row.masked:.1f} %",
            f"{100 * row.padding:.1f} %",
            f"{row.logits:,}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
