"""Hold out chains of the PDB: by entries, by clusters of relatives, and away from CB513 and TS115.

    python experiments/pdb_splits.py --data-dir FOLDER --output FOLDER

It writes the three lists that `data=contacts_pdb` and `data=secondary_structure_pdb` know by name (data.source.split=,
data.source.pdb_split=). Chains of one entry stay together in all of them:

    pdb_chains_entry    250 and 500 chains of entries drawn by chance: homologues of the test are trained on
    pdb_chains_cluster  the same of whole clusters at 30 % identity (mmseqs easy-linclust)
    pdb_chains_clear    these, and in the test also every cluster that has a relative of CB513 or TS115 (easy-search),
                        so that what is learnt from the rest may be tested on them; 24 such chains that were drawn for
                        validation stay there, where they help to choose weights

Of the 579 chains with such a relative, pdb_chains_cluster trains on 497, pdb_chains_entry on 484.

It needs mmseqs (apt-get install mmseqs2) and takes a minute.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from lit_seqlm.command import exit_status
from lit_seqlm.data.proteins.clusters import draw_groups, grouped
from lit_seqlm.data.proteins.homology import Mmseqs
from lit_seqlm.data.proteins.secondary_structure import HHBLITS, SecondaryStructure
from lit_seqlm.data.proteins.split_lists import write_split_list
from lit_seqlm.data.proteins.structures import TABLE, PdbChains

SIZES = {"valid": 250, "test": 500}
SEED = 0
TOOL = Mmseqs("linclust", 0.3, 0.8, 5.7)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="what paths.data_dir is")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the lists")
    said = parser.parse_args()
    return exit_status(lambda: work(said.data_dir, said.output), "stopped.")


def work(data_dir: str, output: Path) -> None:
    chains = PdbChains("contacts_pdb", data_dir, "")
    sequences = {chain.name: chain.sequence for chain in chains.read()}
    made = {"corpus": TABLE, "sha256": chains.files.hashes[TABLE]}
    made |= {"kept": f"all {len(sequences):,} chains, named PDB-CHAIN", "seed": str(SEED)}
    entries = joined({name: [name] for name in sequences})
    with tempfile.TemporaryDirectory() as folder:
        work_folder = Path(folder)
        fasta = written(work_folder / "chains.fasta", sequences)
        pairs = TOOL.clusters(fasta, work_folder)
        clusters = joined(grouped(pairs, sequences, TOOL.said("linclust")))
        tests = written(work_folder / "tests.fasta", benchmarks(data_dir))
        relatives = {hit.target for hit in TOOL.search(tests, fasta, work_folder)}
    how = f"{TOOL.said('linclust')}, joined where an entry is in two"
    by_entry = draw_groups(entries, SIZES, SEED).split_of
    by_cluster = draw_groups(clusters, SIZES, SEED).split_of
    clear = by_cluster | {
        name: by_cluster.get(name, "test")
        for group in clusters.values()
        if relatives & set(group)
        for name in group
    }
    said = {"split": "cluster", "clusters": f"{len(clusters):,} groups, {how}"}
    near = f"{len(relatives):,} chains with a relative in CB513 or TS115, {TOOL.said('search')}"
    output.mkdir(parents=True, exist_ok=True)
    put(output, "entry", made | {"split": f"{len(entries):,} entries, at random"}, by_entry)
    put(output, "cluster", made | said, by_cluster)
    put(output, "clear", made | said | {"also_test": f"clusters of {near}"}, clear)


def joined(groups: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Groups of chains, two of them as one where they have chains of the same entry."""
    of_entry: dict[str, set[str]] = defaultdict(set)
    for group, names in groups.items():
        for name in names:
            of_entry[name.partition("-")[0]].add(group)
    whole: dict[str, str] = {}

    def root(group: str) -> str:
        while whole.setdefault(group, group) != group:
            group = whole[group]
        return group

    for found in of_entry.values():
        first, *others = sorted(map(root, found))
        whole.update(dict.fromkeys(others, first))
    members: dict[str, list[str]] = defaultdict(list)
    for group, names in groups.items():
        members[root(group)] += names
    return dict(members)


def benchmarks(data_dir: str) -> dict[str, str]:
    source = SecondaryStructure("secondary_structure", data_dir, 3, None, "all", False)
    source.fetch()
    return {chain.name: chain.sequence for test in HHBLITS for chain in source.chains_of(test)}


def written(path: Path, sequences: Mapping[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{one}\n" for name, one in sequences.items()), "utf-8")
    return path


def put(output: Path, name: str, made: Mapping[str, str], split_of: Mapping[str, str]) -> None:
    counts = {split: str(list(split_of.values()).count(split)) for split in SIZES}
    write_split_list(output / f"pdb_chains_{name}.txt", {**made, **counts}, split_of)


if __name__ == "__main__":
    raise SystemExit(main())
