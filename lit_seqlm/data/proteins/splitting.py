"""A corpus is divided: read, each sequence once, grouped by homology or family, drawn, and checked for leaks."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pooch

from lit_seqlm.data.prepare.folder import whole_folder
from lit_seqlm.data.prepare.progress import Steps
from lit_seqlm.data.proteins.cleaning import FOR_SCRIPTS, Record, cleaned
from lit_seqlm.data.proteins.clusters import HeldOut, draw_groups, draw_random, families, grouped
from lit_seqlm.data.proteins.homology import has_mmseqs, read_pairs
from lit_seqlm.data.proteins.leak import LeakReport, leak_report, read_fasta, row_of
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.data.proteins.split_lists import HELD_OUT, read_split_list, write_split_list
from lit_seqlm.data.proteins.split_options import SplitOptions
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

log = logging.getLogger(__name__)

LIST, CLUSTERS, MANIFEST, LEAK = "split.txt", "clusters.tsv", "manifest.json", "leak.json"


@dataclass
class Kept:
    """The proteins that are divided, in their order; their sequences lie in a file.

    Attributes:
        counts: of what was read, and of what was left out and why.
    """

    fasta: Path
    names: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def divide(options: SplitOptions) -> tuple[dict[str, Any], LeakReport]:
    """Make the folder of a split: its list, its manifest, its leak report, and clusters that were made.

    Sequences are kept on disk, names and a digest of each sequence in memory: about 250 bytes a protein.
    The same options give the same bytes, whatever the number of threads (measured for linclust).

    Raises:
        UserError: for options that cannot be, a file that cannot be read, a missing tool.
    """
    options.check()
    if options.split == "cluster" and options.clusters is None:
        options.tool.version()  # refuses before the file is read
    with whole_folder(options.output) as folder, Steps().shown() as steps:
        work = folder / "work"
        work.mkdir()
        kept = keep(options, work / "kept.fasta", steps)
        held_out, made = _drawn(options, kept, folder, steps)
        content = _described(options, kept, held_out) | made
        heading = {key: _plain(value) for key, value in content.items()}
        write_split_list(folder / LIST, heading, held_out.split_of)
        report = _searched(options, kept, held_out, work / "leak", steps)
        report.write(folder / LEAK)
        shutil.rmtree(work)
        content["list"] = read_split_list(str(folder / LIST)).digest()
        if options.split == "family":
            content["held_out_families"] = held_out.groups
        (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return content, report


def keep(options: SplitOptions, fasta: Path, steps: Steps) -> Kept:
    """Write what is divided: sequences of a right length, of equal ones the first.

    Raises:
        UserError: two different sequences with one accession, which no list can tell apart; none is left.
    """
    tokenizer = AminoAcidTokenizer("cls", "keep", options.gapped)
    step = steps.begin("proteins", None)
    kept, names, digests = Kept(fasta), dict[str, None](), set[bytes]()
    num_read = num_other = 0
    longest = options.max_len
    with fasta.open("w", encoding="ascii") as file:
        for name, sequence in cleaned(_records(options), tokenizer, options.file.name, FOR_SCRIPTS):
            num_read += 1
            if num_read % 1000 == 0:
                step.advance(1000)
            if len(sequence) < options.min_len or (longest and len(sequence) > longest):
                num_other += 1
                continue
            digest = _digest(sequence)
            if digest in digests:
                continue
            if name in names:
                raise UserError(
                    f"{options.file.name}: two sequences are called {name!r}. A list goes by names."
                )
            digests.add(digest)
            file.write(f">n{len(names)}\n{sequence}\n")
            names[name] = None
    step.finish()
    if not names:
        raise UserError(
            f"{options.file.name}: none of {num_read:,} proteins has a length that was asked for."
        )
    kept.names = list(names)
    repeated = num_read - num_other - len(names)
    kept.counts = {
        "read": num_read,
        "other_length": num_other,
        "repeated": repeated,
        "kept": len(names),
    }
    return kept


def _records(options: SplitOptions) -> Iterator[Record]:
    return read_records(str(options.file), options.column)


def _drawn(
    options: SplitOptions, kept: Kept, folder: Path, steps: Steps
) -> tuple[HeldOut, dict[str, Any]]:
    """What is held out, and what there is to say of how it was grouped."""
    if options.split == "random":
        return draw_random(kept.names, options.sizes, options.seed), {}
    if options.split == "family":
        assert options.families is not None
        groups = families(read_pairs(options.families), kept.names, str(options.families))
        with_family = len({name for members in groups.values() for name in members})
        made: dict[str, Any] = {
            "groups": f"{len(groups):,} families of {options.families.name}",
            "without_family": len(kept.names) - with_family,
        }
    elif options.clusters is not None:
        groups = grouped(read_pairs(options.clusters), kept.names, str(options.clusters))
        made = {"groups": f"{len(groups):,} clusters of {options.clusters.name}"}
    else:
        groups = _clustered(options, kept, folder, steps)
        made = {"groups": f"{len(groups):,} clusters by {options.tool.said(options.tool.method)}"}
    return draw_groups(groups, options.sizes, options.seed, options.test_families), made


def _clustered(
    options: SplitOptions, kept: Kept, folder: Path, steps: Steps
) -> dict[str, list[str]]:
    """Ask the tool, and keep what it says beside the list, so that nobody has to ask again."""
    step = steps.begin(f"mmseqs easy-{options.tool.method}", None)
    pairs = options.tool.clusters(kept.fasta, kept.fasta.parent)
    named = ((kept.names[row_of(one)], kept.names[row_of(other)]) for one, other in pairs)
    groups = grouped(named, kept.names, "mmseqs")
    with (folder / CLUSTERS).open("w", encoding="utf-8") as file:
        for cluster in sorted(groups):
            file.writelines(f"{cluster}\t{member}\n" for member in groups[cluster])
    step.finish()
    return groups


def _searched(
    options: SplitOptions, kept: Kept, held_out: HeldOut, folder: Path, steps: Steps
) -> LeakReport:
    """Of the test against what is trained on; without identities where nobody is to search, or nothing can."""
    search = options.search and has_mmseqs()
    if options.search and not search:
        log.warning(
            "mmseqs is not installed (apt-get install mmseqs2): the leak report has no identities. Repeat it with "
            "python experiments/protein_leak.py."
        )
    step = steps.begin("mmseqs easy-search" if search else "leak report", None)
    split_of = held_out.split_of
    test = [sequence for name, sequence in _sequences(kept) if split_of.get(name) == "test"]
    train = (sequence for name, sequence in _sequences(kept) if name not in split_of)
    num_train = len(kept.names) - len(split_of)
    if not num_train:
        raise UserError(
            "nothing is left to train on: every protein is held out. Hold out fewer families."
        )
    report, _ = leak_report(test, train, num_train, folder, options.tool if search else None)
    step.finish()
    return report


def _sequences(kept: Kept) -> Iterator[tuple[str, str]]:
    yield from zip(kept.names, read_fasta(kept.fasta), strict=True)


def _described(options: SplitOptions, kept: Kept, held_out: HeldOut) -> dict[str, Any]:
    """How the split was made, and what came of it."""
    content: dict[str, Any] = {
        "corpus": options.file.name,
        **({"sha256": pooch.file_hash(str(options.file))} if options.file.is_file() else {}),
        "proteins": kept.counts,
        "min_len": options.min_len,
        "max_len": options.max_len,
        "split": options.split,
        "seed": options.seed,
    }
    for split in HELD_OUT:
        content[split] = held_out.count(split)
        if held_out.groups[split]:
            content[f"{split}_groups"] = len(held_out.groups[split])
    content["train"] = len(kept.names) - len(held_out.split_of)
    return content


def _plain(value: Any) -> str:
    """On one line of a heading."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)


def _digest(sequence: str) -> bytes:
    return hashlib.blake2b(sequence.encode(), digest_size=16).digest()
