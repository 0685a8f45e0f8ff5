"""Does attention look at what is near? Its maps against distances in the molecule, by layer (Ross et al. 2022).

    python experiments/attention_distance.py outputs/NAME/seed_1 [RUN ...] [--molecules 1000] [--output FOLDER]

Coordinates are QM9's, from `pip install qm9pack==1.0.3` (104 MB). Without it, and with --smiles FILE, they are RDKit's
conformers. Beside a run's weights stand random ones in the same model, its own maps with the atoms in another order,
attention that is alike on all pairs, and attention to neighbours in the string alone. Writes attention_distance.json,
and two figures under plots/, into the run's folder, or for each run into FOLDER/NAME-FOLDER_OF_THE_RUN.
"""

# S = molecules, L = layers, A = atoms, C = classes of pairs

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import RDConfig
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from lit_seqlm.checkpoint import find_checkpoint, load_weights, origin_of, read_checkpoint
from lit_seqlm.command import exit_status
from lit_seqlm.config import build, refuse_foreign
from lit_seqlm.console import for_tables
from lit_seqlm.data.chemistry import conformers
from lit_seqlm.data.chemistry.rows import read_rows
from lit_seqlm.data.chemistry.token_atoms import atom_attention
from lit_seqlm.data.molecule_forms import watched
from lit_seqlm.errors import UserError
from lit_seqlm.metrics import attention_distance as measure
from lit_seqlm.metrics.attention_distance import DistanceClass
from lit_seqlm.metrics.bootstrap import Interval
from lit_seqlm.plots.attention import similarity_by_layer, strongest_pairs
from lit_seqlm.plots.save import save
from lit_seqlm.reproduce.table import load_table
from lit_seqlm.results import write_atomically
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

HERE = Path(__file__).resolve().parent
BOUNDS = (("short", 0, 2), ("medium", 2, 4), ("long", 4, 10))  # Å
CLASSES = tuple(DistanceClass(*one) for one in BOUNDS)
TARGETS = ("bonds", *(one.name for one in CLASSES))
SHOWN = {"bonds": "bonded", "short": "up to 2 Å", "medium": "2 to 4 Å", "long": "4 to 10 Å"}
RANDOM = "random weights"
DRAWN = 62509  # of QM9: a molecule of the authors' notebook
OTHER_MOLECULES = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"  # comes with RDKit
NUM_SAMPLES = 1000  # of the bootstrap


@dataclass
class Subject:
    """A run's encoder, and the same with random weights."""

    folder: Path
    origin: dict[str, Any]
    tokenizer: SmilesTokenizer
    trunks: dict[str, nn.Module]


def main() -> int:
    options = parser().parse_args()

    def work() -> None:
        for run in options.runs:
            examine(read_subject(run, options.seed), options)

    return exit_status(work)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("runs", metavar="RUN", nargs="+", help="a run's folder, or a .ckpt file")
    made.add_argument("--molecules", metavar="N", type=int, default=1000)
    made.add_argument("--smiles", metavar="FILE", help="conformers of these molecules by RDKit")
    made.add_argument("--column", default="smiles", help="of the SMILES in a table")
    made.add_argument("--seed", type=int, default=0, help="of the draw and of random weights")
    made.add_argument("--output", metavar="FOLDER", type=Path)
    return made


def read_subject(run: str, seed: int) -> Subject:
    """UserError for what is not a readable run of an encoder on SMILES."""
    path = find_checkpoint(run, said="")
    checkpoint = read_checkpoint(path)
    config = checkpoint["config"]
    refuse_foreign([config["data"]["tokenizer"], config["model"]], run)
    tokenizer = build(config["data"]["tokenizer"])
    if not isinstance(tokenizer, SmilesTokenizer) or "attention" not in config["model"]:
        raise UserError(
            f"{run} is no encoder of SMILES. Give a run with model=linear_encoder or encoder."
        )
    tokenizer.load_state_dict(checkpoint["tokenizer"])
    options = config["model"]
    if "omega_policy" in options["attention"]:
        # Maps of one set of features, as the authors' notebooks have them.
        options = {**options, "attention": {**options["attention"], "omega_policy": "fixed"}}
    torch.manual_seed(seed)
    models = {kind: build(options, vocab_size=len(tokenizer)) for kind in (measure.OWN, RANDOM)}
    load_weights(models[measure.OWN], checkpoint, tokenizer, run, only="trunk.")
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    trunks = {kind: model.eval().trunk for kind, model in models.items()}
    return Subject(folder, origin_of(checkpoint, path), tokenizer, trunks)


def examine(subject: Subject, options: argparse.Namespace) -> None:
    """Measure one run, print its table, write its files."""
    found, outcomes, source = molecules(options, subject.tokenizer)
    values = similarities(subject, found, options.seed)
    intervals = {
        kind: measure.by_target(of_SLC, TARGETS, NUM_SAMPLES, options.seed)
        for kind, of_SLC in values.items()
    }
    name = f"{subject.origin['name']}-{subject.folder.name}"
    folder = options.output / name if options.output else subject.folder
    paper, console = paper_values(), for_tables()
    console.print(shown(intervals, paper, name), highlight=False)
    size = f"{len(found):,} molecules, {source}"
    console.print(f"{size}. {told(outcomes)} In {folder}.", highlight=False)
    record = {"origin": subject.origin, "coordinates": source, "molecules": len(found), "outcomes": outcomes,
              "seed": options.seed, "classes": [one._asdict() for one in CLASSES],
              "similarity": {kind: {key: [asdict(one) for one in layers] for key, layers in of.items()}
                             for kind, of in intervals.items()}}  # fmt: skip
    write_atomically(folder / "attention_distance.json", json.dumps(record, indent=1) + "\n")
    by_shown = {kind: {SHOWN[key]: of[key] for key in TARGETS} for kind, of in intervals.items()}
    title = f"attention and distance: {name}\n{size}"
    save(similarity_by_layer(by_shown, paper, title), "attention_distance", folder, ())
    best = int(np.argmax([one.mean for one in intervals[measure.OWN]["bonds"]]))
    save(drawn(subject, found[0], best), "attention_molecule", folder, ())


def molecules(
    options: argparse.Namespace, tokenizer: SmilesTokenizer
) -> tuple[list[conformers.Conformer], Counter[str], str]:
    """With their coordinates; what became of each; where they come from."""
    if options.molecules < 2:
        raise UserError(f"--molecules {options.molecules}: at least 2.")
    if options.smiles is None and conformers.has_package():
        found, outcomes = conformers.packed_conformers(
            options.molecules, options.seed, tokenizer.isomeric, [DRAWN]
        )
        source = f"QM9 by qm9pack (B3LYP), drawn by seed {options.seed}"
    else:
        path = options.smiles or str(OTHER_MOLECULES)
        rows = [row.smiles for row in read_rows(path, options.column)]
        order = np.random.default_rng(options.seed).permutation(len(rows))[: options.molecules]
        strings = watched([rows[row] for row in order], "conformers", len(order))
        found, outcomes = conformers.embedded_conformers(strings, options.seed, tokenizer.isomeric)
        source = f"RDKit conformers of {Path(path).name}, NOT the QM9 of the paper"
    problems = tokenizer.problems([one.smiles for one in found])
    outcomes["tokens that the model does not know"] = sum(
        problem is not None for problem in problems
    )
    found = [one for one, problem in zip(found, problems, strict=True) if problem is None]
    if not found:
        raise UserError(f"no molecule is left: {told(outcomes)}")
    return found, +outcomes, source


def similarities(
    subject: Subject, found: list[conformers.Conformer], seed: int
) -> dict[str, np.ndarray]:
    """Cosine similarities (S, L, C) of each kind of maps; NaN where a molecule has no such pair."""
    rng, values = np.random.default_rng(seed), dict[str, list[Any]]()
    smiles = [one.smiles for one in found]
    for trunk_kind, trunk in subject.trunks.items():
        read = atom_attention(trunk, subject.tokenizer, smiles)
        for row, maps_LHTT, places_A in watched(read, f"maps, {trunk_kind}", len(smiles)):
            maps_LAA = measure.point_maps(maps_LHTT, places_A)
            kinds = measure.beside(maps_LAA, targets(found[row]), rng)
            if trunk_kind == RANDOM:
                kinds = {RANDOM: kinds[measure.OWN]}
            for kind, cosines_LC in kinds.items():
                values.setdefault(kind, [None] * len(smiles))[row] = cosines_LC
    return {kind: np.stack(of) for kind, of in values.items()}


def targets(one: conformers.Conformer) -> np.ndarray:
    """Which pairs of atoms are bonded, and in each class of distance; bool (C, A, A)."""
    distances_AA = measure.distances(one.positions_A3)
    return np.concatenate([one.bonds_AA[None], measure.classes_of(distances_AA, CLASSES)])


def shown(
    intervals: dict[str, dict[str, list[Interval]]], paper: dict[str, dict[str, float]], name: str
) -> Table:
    """A line for each trained layer; what stands beside it as means over layers."""
    made = Table(
        title=f"cosine similarity of attention with pairs: {name}",
        box=SIMPLE_HEAD,
        title_justify="left",
    )
    made.add_column("weights")
    for target in TARGETS:
        made.add_column(SHOWN[target], justify="right")
    num_layers = len(intervals[measure.OWN]["bonds"])
    for layer in range(num_layers):
        cells = [intervals[measure.OWN][target][layer] for target in TARGETS]
        made.add_row(
            f"layer {layer + 1}", *(f"{c.mean:.3f} [{c.low:.3f}, {c.high:.3f}]" for c in cells)
        )
    for kind, of in intervals.items():
        means = [np.mean([one.mean for one in of[target]]) for target in TARGETS]
        made.add_row(f"{kind}, mean of layers", *(f"{mean:.3f}" for mean in means))
    for label, values in paper.items():
        made.add_row(
            label, *(f"{values[SHOWN[t]]:.3f}" if SHOWN[t] in values else "-" for t in TARGETS)
        )
    return made


def drawn(subject: Subject, one: conformers.Conformer, layer: int) -> Any:
    """One molecule with the strongest pairs of a layer, counted from 0."""
    trunk = subject.trunks[measure.OWN]
    _, maps_LHTT, places_A = next(atom_attention(trunk, subject.tokenizer, [one.smiles]))
    map_AA = measure.point_maps(maps_LHTT, places_A)[layer]
    paper = conformers.drawing(one.smiles)
    title = f"{one.name}, {one.smiles}: layer {layer + 1}, the one most like the bonds on average"
    return strongest_pairs(map_AA, paper.places_A2, paper.symbols_A, paper.bonds, title)


def paper_values() -> dict[str, dict[str, float]]:
    """By row of the paper's table and class of pairs, marked where nobody read them there."""
    rows = load_table(HERE / "ross2022_molformer", "attention_distance").rows
    return {
        f"paper, {row.label}{'' if row.paper.verified else ' (unverified)'}": {
            SHOWN[key.rpartition("/")[2]]: value for key, value in row.paper.value.items()
        }
        for row in rows
        if row.paper is not None
    }


def told(outcomes: Counter[str]) -> str:
    return "; ".join(f"{outcome}: {count:,}" for outcome, count in outcomes.most_common()) + "."


if __name__ == "__main__":
    sys.exit(main())
