"""What is held out of a corpus, drawn by chance: proteins one by one, whole clusters, or whole families."""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lit_seqlm.data.proteins.split_lists import HELD_OUT
from lit_seqlm.errors import UserError, did_you_mean

ROOM = 0.05  # by this share a split may grow over what was asked for, with the last group


@dataclass(frozen=True)
class HeldOut:
    """Which proteins are not trained on.

    Attributes:
        split_of: ``valid`` or ``test`` of each protein held out.
        groups: of each of the two, the names of the clusters or families it consists of.
    """

    split_of: dict[str, str]
    groups: dict[str, list[str]]

    def count(self, split: str) -> int:
        return sum(one == split for one in self.split_of.values())


def draw_random(names: Collection[str], sizes: Mapping[str, int], seed: int) -> HeldOut:
    """Proteins one by one. Relatives of what is held out are trained on, so what a model says of them is flattering."""
    order = sorted(names)
    if sum(sizes.values()) >= len(order):
        raise UserError(
            f"--valid {sizes['valid']} and --test {sizes['test']}: there are {len(order):,} proteins, and some have to "
            "be left to train on."
        )
    random.Random(seed).shuffle(order)
    split_of, start = dict[str, str](), 0
    for split in HELD_OUT:
        split_of |= dict.fromkeys(order[start : start + sizes[split]], split)
        start += sizes[split]
    return HeldOut(split_of, {split: [] for split in HELD_OUT})


def draw_groups(
    groups: Mapping[str, Sequence[str]],
    sizes: Mapping[str, int],
    seed: int,
    named: Sequence[str] = (),
) -> HeldOut:
    """Whole groups in a drawn order, until a split has as many proteins as it should.

    A group that would take a split more than 5 % over its size is passed over and trained on, and so is one that has
    a protein in common with a group of the other split. A protein of several families is held out with any of them.

    Args:
        named: the groups that are the test, whatever their size; empty: they are drawn.
    """
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    held_out = HeldOut({}, {split: [] for split in HELD_OUT})
    if named:
        _take_named(held_out, groups, named)
    coming = iter(order)
    for split in ("valid",) if named else HELD_OUT:
        _fill(held_out, split, groups, coming, sizes[split])
    return held_out


def _take_named(
    held_out: HeldOut, groups: Mapping[str, Sequence[str]], named: Sequence[str]
) -> None:
    for name in named:
        if name not in groups:
            raise UserError(
                f"--test-families {name}: no protein of the corpus is in it. {_near(name, groups)}"
            )
        held_out.split_of.update(dict.fromkeys(groups[name], "test"))
    held_out.groups["test"] = list(named)


def _fill(
    held_out: HeldOut,
    split: str,
    groups: Mapping[str, Sequence[str]],
    coming: Iterator[str],
    size: int,
) -> None:
    """Take groups as they come, and no more of them than it needs."""
    count = 0
    while count < size:
        name = next(coming, None)
        if name is None:
            largest = max(map(len, groups.values()), default=0)
            raise UserError(
                f"--{split} {size}: whole groups came to {count:,} proteins only; the others are too large, or share "
                f"proteins with another split. Ask for fewer, or for more than the {largest:,} of the largest group."
            )
        fresh = [member for member in groups[name] if held_out.split_of.get(member) != split]
        is_shared = any(member in held_out.split_of for member in fresh)
        if is_shared or count + len(fresh) > size * (1 + ROOM):
            continue
        held_out.split_of.update(dict.fromkeys(fresh, split))
        held_out.groups[split].append(name)
        count += len(fresh)


def grouped(
    pairs: Iterable[tuple[str, str]], names: Collection[str], where: str
) -> dict[str, list[str]]:
    """Clusters by their name. Each of `names` is in one, and in one only; what else is in them is left out.

    Raises:
        UserError: a protein in two clusters, or in none; a file that knows none of them.
    """
    cluster_of: dict[str, str] = {}
    known = set(names)
    for cluster, member in pairs:
        if member in known and cluster_of.setdefault(member, cluster) != cluster:
            raise UserError(
                f"{where}: {member} is in two clusters, {cluster_of[member]} and {cluster}."
            )
    if missing := len(known) - len(cluster_of):
        first = next(name for name in names if name not in cluster_of)
        raise UserError(
            f"{where}: {missing:,} of {len(known):,} proteins are in no cluster, among them {first}. A line is a "
            "cluster's name, a tab and one accession, as mmseqs writes *_cluster.tsv."
        )
    groups = defaultdict[str, list[str]](list)
    for name in names:
        groups[cluster_of[name]].append(name)
    return dict(groups)


def families(
    pairs: Iterable[tuple[str, str]], names: Collection[str], where: str
) -> dict[str, list[str]]:
    """Families by their name, of lines ``accession, family``. A protein may be in several, or in none.

    Raises:
        UserError: none of the proteins is in a family.
    """
    known = set(names)
    groups = defaultdict[str, dict[str, None]](dict)
    for member, family in pairs:
        if member in known:
            groups[family].setdefault(member)
    if not groups:
        raise UserError(
            f"{where}: it puts no protein of the corpus into a family. A line is an accession, a tab and a family."
        )
    return {family: list(members) for family, members in groups.items()}


def _near(name: str, groups: Mapping[str, Sequence[str]]) -> str:
    if len(groups) <= 20:
        return did_you_mean(name, groups)
    return f"There are {len(groups):,} families, such as {', '.join(sorted(groups)[:5])}."
