"""The three steps of the preparation that run in many processes: examine, select, encode."""

# N = molecules of a partition

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_seqlm.data.chemistry.canonical import canonicalize
from lit_seqlm.data.prepare.options import Options
from lit_seqlm.data.prepare.partitions import keys_of, read_partition, write_partition
from lit_seqlm.tokenizer.smiles import SmilesTokenizer

Drop = tuple[int, str]  # place in the input, reason


@dataclass
class Examined:
    """Molecules of one stretch of the input, and what is none.

    Attributes:
        keys: of the molecules, `partitions.KEY`.
        smiles: canonical.
        drops: the others.
        num_rows: of both.
    """

    keys: np.ndarray
    smiles: list[str]
    drops: list[Drop]
    num_rows: int


def examine(first: int, written: list[str], options: Options) -> Examined:
    """Canonical SMILES of some rows; drops what is empty, invalid, lossy, too short or too long.

    Args:
        first: place of the first row in the whole input.
    """
    tokenizer = _tokenizer(None, options.isomeric)
    smiles, orders, drops = [], [], []
    for order, one in enumerate(written, start=first):
        found = canonicalize(one, options.isomeric)
        if found.smiles is None:
            drops.append((order, found.reason))
            continue
        tokens = tokenizer.split(found.smiles)
        if "".join(tokens) != found.smiles:
            drops.append((order, tokenizer.problems([found.smiles])[0] or "lossy"))
        elif len(tokens) < options.min_len:
            drops.append((order, f"too_short: {len(tokens)} tokens"))
        elif len(tokens) > options.max_len:
            drops.append((order, f"too_long: {len(tokens)} tokens"))
        else:
            smiles.append(found.smiles)
            orders.append(order)
    return Examined(keys_of(smiles, orders), smiles, drops, len(written))


@dataclass
class Selected:
    """What is left of a partition without its repeated molecules.

    Attributes:
        num_kept: molecules.
        repeated: places in the input, int64, of what stood there before.
        sides: of the molecules below the held-out share.
        counts: of their tokens.
    """

    num_kept: int
    repeated: np.ndarray
    sides: np.ndarray
    counts: Counter[str]


def select(partition: int, folder: Path, target: Path, options: Options) -> Selected:
    """Keep the first of equal molecules, put them in the order of their hashes."""
    keys_N, smiles = read_partition(folder, partition)
    order_N = np.lexsort((keys_N["order"], keys_N["side"], keys_N["hash"]))
    keys_N = keys_N[order_N]
    is_new_N = np.ones(len(keys_N), dtype=bool)
    same = (keys_N["hash"][1:] == keys_N["hash"][:-1]) & (keys_N["side"][1:] == keys_N["side"][:-1])
    is_new_N[1:] = ~same
    kept = [smiles[row] for row in order_N[is_new_N].tolist()]
    repeated = np.sort(keys_N["order"][~is_new_N]).astype(np.int64)
    keys_N = keys_N[is_new_N]
    write_partition(target, partition, keys_N, kept)
    sides = keys_N["side"]
    held_out = sides[sides < np.uint64(share_limit(options.holdout))]
    counts = _tokenizer(None, options.isomeric).count(kept)
    return Selected(len(kept), repeated, held_out, counts)


def share_limit(share: float) -> int:
    """The number below which so large a share of all 64-bit numbers lies."""
    return int(share * 2**64)


@dataclass
class Encoded:
    """What a partition gives to each split.

    Attributes:
        lengths: for each, how many molecules have so many tokens, begin and end included.
        drops: molecules with tokens outside the vocabulary.
    """

    lengths: dict[str, Counter[int]]
    drops: list[Drop]


def encode(
    partition: int, folder: Path, vocabulary: Path, side_limit: int, isomeric: bool
) -> Encoded:
    """Token ids of a partition, for each split one file of ids and one of lengths, both uint16.

    Args:
        side_limit: molecules whose side lies below it are held out.
    """
    tokenizer = _tokenizer(str(vocabulary), isomeric)
    keys_N, smiles = read_partition(folder, partition)
    problems = tokenizer.problems(smiles)
    drops = sorted(
        (int(keys_N["order"][row]), reason) for row, reason in enumerate(problems) if reason
    )
    is_good_N = np.array([reason is None for reason in problems], dtype=bool)
    is_held_N = keys_N["side"] < np.uint64(side_limit)
    result = Encoded({}, drops)
    for split, is_there_N in (("train", is_good_N & ~is_held_N), ("valid", is_good_N & is_held_N)):
        table = tokenizer.encode([smiles[row] for row in np.flatnonzero(is_there_N).tolist()])
        lengths_N = table.lengths.astype(np.uint16)
        result.lengths[split] = Counter(lengths_N.tolist())
        if len(table):
            table.ids.tofile(folder / f"{partition:03d}.{split}.ids")
            lengths_N.tofile(folder / f"{partition:03d}.{split}.lengths")
    return result


def _tokenizer(vocabulary: str | None, isomeric: bool) -> SmilesTokenizer:
    return SmilesTokenizer(vocabulary, unknown="error", isomeric=isomeric, min_count=1)
