r"""How much of a test of proteins has been seen in training: equal sequences, relatives, 3-grams.

    python experiments/protein_leak.py TEST TRAIN [--output FILE.json] [--identities FILE.tsv]

Each side is a file, or NAME:SPLIT of conf/data with options of it after commas:

    python experiments/protein_leak.py swissprot_sample:test swissprot_sample:train
    python experiments/protein_leak.py secondary_structure:cb513 \
        secondary_structure:train,source.drop_test_overlaps=false
    python experiments/protein_leak.py protein_shards:test,source.folder=CORPUS \
        protein_shards:train,source.folder=CORPUS

What is trained on is read as a stream: a corpus of shards may be larger than memory.

Relatives are found by mmseqs (apt-get install mmseqs2); --no-search leaves them out. What of the reports is kept stands
under experiments/xiao2021_proteinlm/leak.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.data.prepare.progress import Steps
from lit_seqlm.data.proteins.homology import Mmseqs
from lit_seqlm.data.proteins.leak import leak_report, shown
from lit_seqlm.data.proteins.named import named_proteins, named_sequences
from lit_seqlm.results import write_atomically


def main() -> int:
    options = parser().parse_args()
    return exit_status(lambda: work(options))


def work(options: argparse.Namespace) -> None:
    tool = None if options.no_search else searching(options.sensitivity, options.threads)
    with Steps().shown() as steps, TemporaryDirectory() as folder:
        step = steps.begin("leak report" if options.no_search else "mmseqs easy-search", None)
        test, train = named_sequences(options.test), named_proteins(options.train)
        labels = (options.test_label or options.test, options.train_label or options.train)
        report, best_N = leak_report(test, train, len(train), Path(folder), tool, labels)
        step.finish()
    for_tables().print(shown([report]), highlight=False)
    if options.output:
        report.write(options.output)
    if options.identities:
        write_atomically(options.identities, as_table(test, best_N))


def searching(sensitivity: float, threads: int) -> Mmseqs:
    """UserError where the tool is missing, before anything is read."""
    tool = Mmseqs("linclust", 0.3, 0.8, sensitivity, threads)
    tool.version()
    return tool


def as_table(test: list[str], best_N: np.ndarray) -> str:
    """A line a test protein: its sequence and its highest identity, -1 where nothing was aligned."""
    lines = [f"{sequence}\t{best:.3f}" for sequence, best in zip(test, best_N, strict=True)]
    return "\n".join(["sequence\tidentity", *lines]) + "\n"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("test", metavar="TEST")
    made.add_argument("train", metavar="TRAIN")
    made.add_argument("--output", type=Path, metavar="FILE.json")
    made.add_argument(
        "--identities", type=Path, metavar="FILE.tsv", help="of each test protein, by its sequence"
    )
    made.add_argument("--test-label", help="what the report calls it")
    made.add_argument("--train-label", help="what the report calls it")
    made.add_argument("--no-search", action="store_true", help="equal sequences and 3-grams only")
    made.add_argument("--sensitivity", type=float, default=5.7, help="of mmseqs, 1 to 7.5")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return made


if __name__ == "__main__":
    raise SystemExit(main())
