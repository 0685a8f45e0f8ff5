"""MoLFormer's weights into this program, and a run's encoder out of it.

    python experiments/convert_molformer.py import N-Step-Checkpoint_3_30000.ckpt --vocabulary bert_vocab.txt \\
        --output pretrained/molformer
    python experiments/convert_molformer.py import MoLFormer-XL-both-10pct --output pretrained/molformer_hf
    python experiments/convert_molformer.py export outputs/NAME/seed_1 --output FOLDER

`import` reads IBM's Lightning checkpoint, a DeepChem file or a Hugging Face folder that you have downloaded, runs no
code of theirs, and writes a folder for init_from=FOLDER and lit_seqlm.load(FOLDER). `export` writes a Hugging Face
folder. Both end with a table, which report.json keeps.
"""

import argparse
import sys
from pathlib import Path

from lit_seqlm.command import exit_status
from lit_seqlm.hf.convert import import_weights
from lit_seqlm.hf.export import export_run
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
    reads.add_argument("origin", metavar="CHECKPOINT", help="a file, or a Hugging Face folder")
    reads.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="bert_vocab.txt, vocab.json or tokenizer.json; what lies beside the weights if not given",
    )
    reads.add_argument(
        "--family",
        default="auto",
        help="official or hf, if the file should be refused otherwise; auto tells by the names",
    )
    reads.add_argument(
        "--seed",
        type=int,
        default=1,
        help="for tensors that the file lacks: omega, the output head",
    )
    writes = commands.add_parser("export", help="a run's encoder into a Hugging Face folder")
    writes.add_argument("origin", metavar="RUN", help="a run's folder, or its best.ckpt")
    for command in (reads, writes):
        command.add_argument("--output", metavar="FOLDER", type=Path, required=True)
    return made


def convert(options: argparse.Namespace) -> None:
    if options.command == "import":
        report = import_weights(
            options.origin, options.vocabulary, options.output, options.family, options.seed
        )
        use = f"init_from={options.output}, or lit_seqlm.load({str(options.output)!r})"
    else:
        report = export_run(options.origin, options.output)
        use = f"{options.output}: model.safetensors, config.json and the vocabulary"
    show(report, f"{options.command.capitalize()}ed", use)


if __name__ == "__main__":
    sys.exit(main())
