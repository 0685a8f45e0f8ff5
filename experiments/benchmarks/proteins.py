"""Speed of packed proteins against padded ones, side by side in one run.

    FOLDER/bin/python experiments/benchmarks/proteins.py [--only lengths,equal] [--quick] [--out FILE]

FOLDER is the environment of setup_molecules.sh; of its peers transformers alone is needed. A ratio is a time over the
peer's, for the same proteins on as many threads. All take turns, each in a process that holds its model; the median and
the 10th to 90th percentile are over paired repetitions.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measure import CONTEXT, Comparison, Worker, by_turns, seconds
from protein_models import BERT, ESM, PACKED, PADDED, batches_of, padding, training
from text import comparison_table, header, rounded

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.data.token_table import TokenTable
from lit_seqlm.errors import UserError
from lit_seqlm.results import write_atomically
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

HERE = Path(__file__).resolve().parent
PARTS = ("lengths", "equal")
SAMPLE = "proteins/swissprot_go/swissprot_go_201401_sample100k.tsv.gz"
MODELS = ("mlm_small", "mlm_tiny")
LONGEST = 511  # residues, as the CPU presets
EQUAL = {64: 64, 128: 32, 256: 16, 512: 8}  # tokens of a sequence: sequences
REAL_TARGET, EQUAL_TARGET = round(1 / 1.5, 3), 1.0
PRELOAD = [
    "torch", "torch._dynamo", "rich.progress", "hydra", "lit_seqlm.config", "lit_seqlm.model.bert",
    "transformers.models.bert.modeling_bert", "transformers.models.esm.modeling_esm",
]  # fmt: skip
console = for_tables()


def main() -> int:
    options = parser().parse_args()
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser().error(f"--only {','.join(unknown)}: choose among {','.join(PARTS)}")
    return exit_status(lambda: measure(options, chosen))


def measure(options: argparse.Namespace, chosen: list[str]) -> None:
    """Part after part; the file is written after each, so that a later part that fails takes none with it."""
    if not find_spec("transformers"):
        raise UserError(
            f"transformers is not installed for {sys.executable}. Make the environment once, sh "
            "experiments/benchmarks/setup_molecules.sh FOLDER, then run this with FOLDER/bin/python."
        )
    table = proteins(48 if options.quick else 128) if "lengths" in chosen else None
    CONTEXT.set_forkserver_preload(PRELOAD)
    record, started = header(options.quick), time.monotonic()
    record["versions"] |= {"transformers": version("transformers")}
    rows: list[Comparison] = []
    for part in [part for part in PARTS if part in chosen]:
        if part == "lengths":
            assert table is not None
            rows += real_lengths(table, options.quick)
            record["padding"] = {n: padding(batches_of(n, table)) for n in (PACKED, PADDED, BERT)}
            record["tokens"] = int(table.lengths.sum())
        else:
            rows += equal_lengths(options.quick)
        record["comparisons"] = [asdict(row) for row in rows]
        record["wall_seconds"] = round(time.monotonic() - started, 1)
        write_atomically(options.out, json.dumps(rounded(record), indent=1) + "\n")
    show(record, rows)
    console.print(f"written to {options.out}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    made.add_argument("--quick", action="store_true", help="small: to see that it works")
    made.add_argument("--out", type=Path, default=HERE / "proteins.json")
    return made


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


def real_lengths(table: TokenTable, quick: bool) -> list[Comparison]:
    """Training steps over real proteins: packed, padded by length, and the peers' random batches."""
    rows = []
    for model in ("mlm_nano",) if quick else MODELS:
        what = f"{model}, {len(table)} proteins of Swiss-Prot, training step"
        rows += by_size(what, model, table, 2 if quick else 6, REAL_TARGET)
    return rows


def equal_lengths(quick: bool) -> list[Comparison]:
    """Training steps over sequences of one length: nothing is padded for anybody."""
    rows = []
    for model in ("mlm_nano",) if quick else MODELS:
        for length, number in EQUAL.items():
            ids = np.random.default_rng(0).integers(5, 30, (number, length))
            ids[:, 0] = 2
            what = f"{model}, {number} x {length} tokens, training step"
            rows += by_size(what, model, TokenTable.of(ids), 2 if quick else 8, EQUAL_TARGET)
    return rows


def by_size(
    what: str, model: str, table: TokenTable, times: int, target: float
) -> list[Comparison]:
    """Ours over each of the others, by turns; freed memory is kept for all, as this program does for itself."""
    names = (PACKED, PADDED, BERT, ESM)
    workers = {name: Worker(training, name, model, table, keep_memory=True) for name in names}
    found = {name: seconds(of) for name, of in by_turns(workers, times, what, 240.0).items()}
    ours = found.pop(PACKED)
    targets = {BERT: target, ESM: target}
    return [Comparison.of(what, name, ours, of, targets.get(name)) for name, of in found.items()]


def show(record: dict[str, Any], rows: list[Comparison]) -> None:
    versions = ", ".join(f"{name} {of}" for name, of in record["versions"].items())
    console.print(f"\n{record['device']}, {versions}, commit {record['commit']}")
    console.print(comparison_table(rows))
    for name, share in record.get("padding", {}).items():
        console.print(f"padding of {name}: {100 * share:.1f} %")


if __name__ == "__main__":
    sys.exit(main())
