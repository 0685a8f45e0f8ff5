"""Weights of ProteinLM and of TAPE's bert-base into this program, and a run's encoder into TAPE's layout.

    python experiments/convert_proteins.py import proteinlm/iter_1000000 --output pretrained/proteinlm
    python experiments/convert_proteins.py import bert-base --output pretrained/tape
    python experiments/convert_proteins.py export outputs/NAME/seed_1 --output FOLDER

`import` reads a Megatron checkpoint of ProteinLM (the folder of its ranks, which are put together, or a file) or TAPE's
pytorch_model.bin with config.json, runs no code of theirs, and writes a folder for init_from=FOLDER and
lit_seqlm.load(FOLDER). `export` writes TAPE's layout. Both end with a table, which report.json keeps.
"""

import argparse
import sys
from pathlib import Path

from lit_seqlm.command import exit_status
from lit_seqlm.hf.proteins.convert import import_protein
from lit_seqlm.hf.proteins.export import export_protein
from lit_seqlm.hf.shown import show


def main() -> int:
    options = parser().parse_args()
    return exit_status(lambda: convert(options), "stopped; nothing that looks whole was left.")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = made.add_subparsers(dest="command", required=True)
    reads = commands.add_parser("import", help="published weights into a folder for init_from=")
    reads.add_argument("origin", metavar="CHECKPOINT", help="a folder, or a file")
    reads.add_argument(
        "--layout",
        default="auto",
        help="megatron or tape, if the file should be refused otherwise; auto tells by the names",
    )
    reads.add_argument(
        "--final-ln",
        default="apply",
        help="apply, as ProteinLM is pretrained; literal: without the last norm, as its downstream code reads it",
    )
    reads.add_argument(
        "--checkpoint-version",
        type=float,
        help="of a Megatron file that does not say it: 0, 1, 2 or 3; it decides the order of queries, keys and values",
    )
    reads.add_argument("--heads", type=int, help="of a file whose settings are lost")
    reads.add_argument(
        "--seed", type=int, default=1, help="for what the file lacks: rows, the output head"
    )
    writes = commands.add_parser("export", help="a run's encoder into TAPE's layout")
    writes.add_argument("origin", metavar="RUN", help="a run's folder, or its best.ckpt")
    for command in (reads, writes):
        command.add_argument("--output", metavar="FOLDER", type=Path, required=True)
    return made


def convert(options: argparse.Namespace) -> None:
    if options.command == "import":
        report = import_protein(
            options.origin,
            options.output,
            options.layout,
            options.final_ln,
            options.checkpoint_version,
            options.heads,
            options.seed,
        )
        use = f"init_from={options.output}, or lit_seqlm.load({str(options.output)!r})"
    else:
        report = export_protein(options.origin, options.output)
        use = f"{options.output}: pytorch_model.bin and config.json"
    show(report, f"{options.command.capitalize()}ed", use)


if __name__ == "__main__":
    sys.exit(main())
