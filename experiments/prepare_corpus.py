"""Make a corpus of molecules to pretrain on: canonical, each molecule once, shuffled, as shards of tokens.

    python experiments/prepare_corpus.py zinc.smi.gz pubchem.csv --column smiles --output corpus

The folder holds train/ and valid/ (litdata), vocabulary.txt, token_counts.json, manifest.json and dropped.csv.gz, which
names every row that is not in the corpus and says why. It appears when it is complete, and not before.
"""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from lit_seqlm.command import exit_status
from lit_seqlm.data.prepare.options import Options
from lit_seqlm.data.prepare.pipeline import prepare


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that half a folder is removed
    options = parser().parse_args()
    options.inputs = tuple(options.inputs)
    options.vocabulary = None if options.vocabulary == "built" else options.vocabulary
    return exit_status(
        lambda: report(prepare(Options(**vars(options))), options.output),
        "stopped; nothing is left of it, the same command begins again.",
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="CSV, TSV, SMI, TXT (also .gz), parquet; - is standard input",
    )
    top.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    top.add_argument("--column", default="smiles", help="of the SMILES, where columns have names")
    top.add_argument("--isomeric", action="store_true", help="keep stereo marks and isotopes")
    top.add_argument("--min-len", type=int, default=2, help="tokens; shorter ones are dropped")
    top.add_argument("--max-len", type=int, default=202, help="tokens; longer ones are dropped")
    top.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    top.add_argument(
        "--vocabulary",
        default="built",
        metavar="FILE",
        help="one token a line, such as MoLFormer's bert_vocab.txt; or built (the default)",
    )
    top.add_argument(
        "--min-count",
        type=int,
        default=1,
        help="built: drop molecules with a rarer token; 50 for 100 million and more",
    )
    top.add_argument("--holdout", type=float, default=0.001, help="share held out for validation")
    top.add_argument("--max-holdout", type=int, default=100_000, help="molecules held out, at most")
    top.add_argument("--shard-molecules", type=int, default=2**20, help="molecules of one file")
    return top


def report(manifest: dict[str, Any], output: Path) -> None:
    splits = manifest["splits"]
    print(
        f"{output}: {splits['train']['molecules']:,} molecules to train on, "
        f"{splits['valid']['molecules']:,} held out, of {manifest['rows']:,} rows; "
        f"{splits['train']['tokens']:,} tokens, vocabulary {manifest['vocabulary']['size']:,}"
    )
    for reason, count in sorted(manifest["dropped"].items(), key=lambda pair: -pair[1]):
        print(f"  dropped {count:,} {reason} ({100 * count / manifest['rows']:.2f} %)")


if __name__ == "__main__":
    raise SystemExit(main())
