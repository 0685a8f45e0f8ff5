"""Hold out proteins for validation and test: one by one, by clusters of relatives, or by families.

    python experiments/split_proteins.py FILE --split random --valid 2000 --test 2000 --output FOLDER
    python experiments/split_proteins.py FILE --split cluster --valid 2000 --test 2000 --output FOLDER [--clusters TSV]
    python experiments/split_proteins.py FILE --split family --families TSV [--test-families PF18369,PF04680] ...

The folder holds split.txt, which data.source.split=FOLDER/split.txt reads; manifest.json, which says how it was made;
leak.json, what of the test is seen in training; and clusters.tsv, where mmseqs made clusters (apt-get install mmseqs2).
It appears when it is complete. Lists of the Swiss-Prot sample that the program brings along are made by
--min-len 30 --max-len 512 --seed 0 --valid 2000 --test 2000; swissprot_sample_cascaded also by --method cluster, which
finds more relatives: 12 % of its test have one of over 50 % identity in training, of swissprot_sample_cluster 52 %.
"""

import argparse
import os
import signal
from pathlib import Path

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.data.proteins.homology import METHODS, Mmseqs
from lit_seqlm.data.proteins.leak import shown
from lit_seqlm.data.proteins.split_options import KINDS, SplitOptions
from lit_seqlm.data.proteins.splitting import divide


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that half a folder is removed
    said = parser().parse_args()
    return exit_status(
        lambda: work(said), "stopped; nothing is left of it, the same command begins again."
    )


def work(said: argparse.Namespace) -> None:
    options = SplitOptions(
        file=said.file, column=said.column, output=said.output, split=said.split,
        sizes={"valid": said.valid, "test": said.test},
        min_len=said.min_len, max_len=said.max_len, seed=said.seed, gapped=said.gapped,
        clusters=said.clusters, families=said.families,
        test_families=tuple(name for name in said.test_families.split(",") if name),
        search=not said.no_search,
        tool=Mmseqs(said.method, said.min_seq_id, said.coverage, said.sensitivity, said.threads),
    )  # fmt: skip
    content, report = divide(options)
    counts, console = content["proteins"], for_tables()
    console.print(shown([report]), highlight=False)
    console.print(
        f"{said.output}: {content['train']:,} proteins to train on, {content['valid']:,} valid, {content['test']:,} "
        f"test, of {counts['read']:,} read; {counts['other_length']:,} have another length than {said.min_len} to "
        f"{said.max_len or 'any'}, {counts['repeated']:,} repeat another.",
        highlight=False,
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("file", type=Path, metavar="FILE", help="whatever proteins are read from")
    top.add_argument("--column", help="of the sequences, in a table or JSON; default: sequence")
    top.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    top.add_argument("--split", choices=KINDS, required=True)
    top.add_argument("--valid", type=int, required=True, metavar="N", help="proteins")
    top.add_argument("--test", type=int, required=True, metavar="N", help="proteins")
    top.add_argument("--seed", type=int, default=0)
    top.add_argument("--min-len", type=int, default=1, help="residues; shorter ones are left out")
    top.add_argument("--max-len", type=int, help="residues; longer ones are left out")
    top.add_argument("--gapped", action="store_true", help="take out - and . of aligned sequences")
    top.add_argument("--clusters", type=Path, metavar="TSV", help="cluster, tab, accession")
    top.add_argument("--families", type=Path, metavar="TSV", help="accession, tab, family")
    top.add_argument("--test-families", default="", metavar="NAME,...", help="default: drawn")
    mmseqs = top.add_argument_group("mmseqs")
    mmseqs.add_argument("--method", choices=METHODS, default="linclust", help="of clustering")
    mmseqs.add_argument("--min-seq-id", type=float, default=0.3, help="of one cluster")
    mmseqs.add_argument("--coverage", type=float, default=0.8, help="of both, in one cluster")
    mmseqs.add_argument("--sensitivity", type=float, default=5.7, help="of the search for leaks")
    mmseqs.add_argument("--no-search", action="store_true", help="no search for leaks")
    mmseqs.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return top


if __name__ == "__main__":
    raise SystemExit(main())
