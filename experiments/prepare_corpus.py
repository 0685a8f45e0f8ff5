"""Make a corpus to pretrain on: canonical molecules or clean proteins, each once, shuffled, as shards of tokens.

    python experiments/prepare_corpus.py zinc.smi.gz pubchem.csv --column smiles --output corpus
    python experiments/prepare_corpus.py pfam.fasta.gz --kind protein --clusters pfam_cluster.tsv --output corpus

The folder holds train/, valid/ and, of proteins, test/ (litdata), vocabulary.txt, token_counts.json, manifest.json and
dropped.csv.gz, which names every row that is not in the corpus and says why. It appears when it is complete, and not
before. --kind protein --help tells the options of proteins.
"""

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_seqlm.command import exit_status
from lit_seqlm.data.prepare.options import CorpusOptions, Options, ProteinOptions
from lit_seqlm.data.prepare.pipeline import prepare
from lit_seqlm.errors import UserError

SHARE = 0.001  # held out where nothing is said


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that half a folder is removed
    given = vars(parser(kind()).parse_args())
    given["inputs"] = tuple(given["inputs"])
    make = {"molecule": molecule_options, "protein": protein_options}[given.pop("kind")]
    return exit_status(
        lambda: run(make, given), "stopped; nothing is left of it, the same command begins again."
    )


def run(make: Callable[[dict[str, Any]], CorpusOptions], given: dict[str, Any]) -> None:
    options = make(given)
    report(prepare(options), options)


def molecule_options(given: dict[str, Any]) -> Options:
    vocabulary = None if given["vocabulary"] == "built" else given["vocabulary"]
    return Options(**{**given, "vocabulary": vocabulary, "holdout": _share(given)})


def protein_options(given: dict[str, Any]) -> ProteinOptions:
    if given["split"] is not None and given["holdout"] is not None:
        raise UserError("--split and --holdout: the list says what is held out. Give one of them.")
    return ProteinOptions(**{**given, "holdout": _share(given)})


def _share(given: dict[str, Any]) -> float:
    return SHARE if given["holdout"] is None else given["holdout"]


def kind() -> str:
    """What the corpus is of: decides which options there are."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--kind", default="molecule")
    return first.parse_known_args()[0].kind


def parser(chosen: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--kind", default="molecule", choices=["molecule", "protein"])
    top.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    top.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    top.add_argument("--holdout", type=float, help=f"share held out; {SHARE}")
    top.add_argument("--max-holdout", type=int, default=100_000, help="sequences held out, at most")
    if chosen == "protein":
        add_protein(top)
    else:
        add_molecule(top)
    return top


def add_molecule(top: argparse.ArgumentParser) -> None:
    files = "CSV, TSV, SMI, TXT (also .gz), parquet; - is standard input"
    top.add_argument("inputs", nargs="+", metavar="INPUT", help=files)
    top.add_argument("--column", default="smiles", help="of the SMILES, where columns have names")
    top.add_argument("--isomeric", action="store_true", help="keep stereo marks and isotopes")
    top.add_argument("--min-len", type=int, default=2, help="tokens; shorter ones are dropped")
    top.add_argument("--max-len", type=int, default=202, help="tokens; longer ones are dropped")
    vocabulary = "one token a line, such as MoLFormer's bert_vocab.txt; or built (the default)"
    top.add_argument("--vocabulary", default="built", metavar="FILE", help=vocabulary)
    rare = "built: drop molecules with a rarer token; 50 for 100 million and more"
    top.add_argument("--min-count", type=int, default=1, help=rare)
    top.add_argument("--shard-molecules", type=int, default=2**20, help="molecules of one file")


def add_protein(top: argparse.ArgumentParser) -> None:
    files = "FASTA, Swiss-Prot .dat, JSONL, CSV, TSV (also .gz), parquet, TAPE LMDB or JSON, BLAST"
    top.add_argument("inputs", nargs="+", metavar="INPUT", help=files)
    top.add_argument("--column", help="of the sequences; sequence, or TAPE's primary")
    top.add_argument("--min-len", type=int, default=2, help="residues; shorter ones are dropped")
    longest = "residues; 2175 fill a row of ProteinLM, with <cls>"
    top.add_argument("--max-len", type=int, default=2175, help=longest)
    over_long = "longer ones: drop (the default) or truncate; both are counted"
    top.add_argument("--over-long", default="drop", help=over_long)
    top.add_argument("--ends", default="cls", help="cls, as ProteinLM | cls_sep, as TAPE")
    ambiguous = "B Z U O: keep | to_x | drop, X too"
    top.add_argument("--ambiguous", default="keep", help=ambiguous)
    top.add_argument("--gapped", action="store_true", help="take out - and . of an alignment")
    clusters = "hold out whole clusters: mmseqs' *_cluster.tsv of the same files"
    top.add_argument("--clusters", metavar="FILE", help=clusters)
    split = "hold out what a list of split_proteins.py names, instead of a share"
    top.add_argument("--split", metavar="LIST", help=split)
    top.add_argument("--shard-proteins", type=int, default=2**17, help="proteins of one file")


def report(manifest: dict[str, Any], options: CorpusOptions) -> None:
    nouns = options.kind.nouns
    train, *held_out = (split[nouns] for split in manifest["splits"].values())
    print(
        f"{options.output}: {train:,} {nouns} to train on, "
        f"{sum(held_out):,} held out, of {manifest['rows']:,} rows; "
        f"{manifest['splits']['train']['tokens']:,} tokens, vocabulary {manifest['vocabulary']['size']:,}"
    )
    for what in ("dropped", "changed"):
        for reason, count in sorted(manifest.get(what, {}).items(), key=lambda pair: -pair[1]):
            print(f"  {what} {count:,} {reason} ({100 * count / manifest['rows']:.2f} %)")


if __name__ == "__main__":
    raise SystemExit(main())
