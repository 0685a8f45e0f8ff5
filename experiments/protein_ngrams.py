"""What neighbours alone say of amino acids: n-grams on the very split that a model is trained and tested on.

    python experiments/protein_ngrams.py [--data swissprot_sample] [--splits LIST ...] [--output FILE.json]

Witten-Bell n-grams of orders 1 to 5 read from left to right, as a causal model does; two-sided ones see neighbours on
both sides, as a masked model does. A model that does no better has learnt nothing of proteins. Takes about a minute and
1 GB. What is kept: experiments/xiao2021_proteinlm/ngrams.json.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.data.molecule_forms import watched
from lit_seqlm.data.proteins.named import named_sequences
from lit_seqlm.data.proteins.split_lists import read_split_list
from lit_seqlm.metrics.letters import Alphabet
from lit_seqlm.metrics.ngram import DEFINITIONS, MAX_ORDER, TwoSided, WittenBell, score
from lit_seqlm.results import finite, git_state, write_atomically
from lit_seqlm.tokenizer.amino_acid import RESIDUES, STANDARD

OUTPUT = Path(__file__).parent / "xiao2021_proteinlm" / "ngrams.json"
ALPHABET = Alphabet(RESIDUES, STANDARD)
REACHES = (1, 2)  # neighbours on each side
NAMES = ("uniform", "unigram", "bigram", "trigram", "4-gram", "5-gram")
COLUMNS = ("ppl", "ppl_beside_end", "ppl_with_end", "ppl_standard", "accuracy", "expected_accuracy")


@dataclass(frozen=True)
class Size:
    """How much was counted or scored."""

    sequences: int
    residues: int
    median_length: float
    longest: int

    @classmethod
    def of(cls, sequences: list[str]) -> "Size":
        lengths = [len(one) for one in sequences]
        return cls(len(lengths), sum(lengths), float(np.median(lengths)), max(lengths))


def main() -> int:
    options = parser().parse_args()
    return exit_status(lambda: work(options))


def work(options: argparse.Namespace) -> None:
    """Measure, print a table, write the file."""
    commit, is_changed = git_state()
    found = {split: measured(options.data, split, options.seed) for split in options.splits}
    console = for_tables()
    for split, record in found.items():
        console.print(shown(f"{options.data}, {split}", record), highlight=False)
    record = {
        "data": options.data, "definitions": DEFINITIONS, "letters": RESIDUES, "standard": STANDARD,
        "seed": options.seed, "commit": commit, "dirty": is_changed, "splits": found,
    }  # fmt: skip
    write_atomically(options.output, json.dumps(record, indent=1) + "\n")
    console.print(f"In {options.output}.", highlight=False)


def measured(data: str, split: str, seed: int) -> dict[str, Any]:
    """Every model of one list, counted on its training and scored on its test."""
    train, test = (
        named_sequences(f"{data}:{part},source.split={split}") for part in ("train", "test")
    )
    jobs = [(name, 0, order) for order, name in enumerate(NAMES)]
    jobs += [(f"two-sided, {reach} on each side", reach, reach + 1) for reach in REACHES]
    models: dict[int, WittenBell | TwoSided] = {}  # by reach; 0 reads from left to right
    rows = {}
    for name, reach, order in watched(jobs, split, len(jobs)):
        if reach not in models:
            models.clear()
            models[reach] = (
                TwoSided.of(ALPHABET, reach, train)
                if reach
                else WittenBell(ALPHABET, MAX_ORDER, train)
            )
        rows[name] = finite(score(models[reach], order, test, seed))
    digest = read_split_list(split).digest()
    return {
        "list": digest,
        "train": asdict(Size.of(train)),
        "test": asdict(Size.of(test)),
        "models": rows,
    }


def shown(title: str, record: dict[str, Any]) -> Table:
    """A line a model."""
    sizes = ", ".join(
        f"{part} {record[part]['sequences']:,} sequences, {record[part]['residues']:,} residues"
        for part in ("train", "test")
    )
    made = Table(title=f"{title}: {sizes}", box=SIMPLE_HEAD, title_justify="left")
    made.add_column("n-grams")
    for column in COLUMNS:
        made.add_column(column, justify="right")
    for name, row in record["models"].items():
        made.add_row(name, *(cell(row, column) for column in COLUMNS))
    return made


def cell(row: dict[str, float], column: str) -> str:
    if column not in row:
        return "-"
    text = f"{row[column]:.4f}" if "accuracy" in column else f"{row[column]:.2f}"
    if column == "ppl" and "ppl_low" in row:
        text += f" [{row['ppl_low']:.2f}, {row['ppl_high']:.2f}]"
    return text


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", default="swissprot_sample", help="an option of conf/data")
    made.add_argument(
        "--splits",
        nargs="+",
        metavar="LIST",
        default=[f"swissprot_sample_{kind}" for kind in ("random", "cluster", "cascaded")],
        help="lists that the program brings along, or files",
    )
    made.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE.json")
    made.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
