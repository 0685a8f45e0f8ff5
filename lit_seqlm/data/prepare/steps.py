"""The three steps of the preparation that run in many processes: examine, select, encode."""

# N = sequences of a partition

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_seqlm.data.prepare.dropped import Drop
from lit_seqlm.data.prepare.holdout import HoldOut
from lit_seqlm.data.prepare.inputs import Chunk
from lit_seqlm.data.prepare.kinds import Kind
from lit_seqlm.data.prepare.partitions import keys_of, read_names, read_partition, write_partition


@dataclass
class Examined:
    """Sequences of one stretch of the input, and what is none.

    Attributes:
        keys: of the sequences, `partitions.KEY`.
        texts, names: of them, canonical; rows of some kinds have no names.
        drops: the others.
        changes: what was done to how many of them.
        listed: what of a list of held-out names occurred.
        num_rows: of all.
    """

    keys: np.ndarray
    texts: list[str]
    names: list[str] | None
    drops: list[Drop]
    changes: Counter[str]
    listed: set[str]
    num_rows: int


def examine(chunk: Chunk, kind: Kind, hold_out: HoldOut) -> Examined:
    """The canonical form of some rows, and what is dropped of them."""
    texts, names, orders, drops = [], [], [], []
    changes: Counter[str] = Counter()
    rows = zip(chunk.names, kind.examine(chunk.texts), strict=True)
    for order, (name, found) in enumerate(rows, start=chunk.first):
        changes.update(found.changes)
        if found.text is None:
            drops.append(Drop(order, found.reason, name))
        else:
            texts.append(found.text)
            names.append(name)
            orders.append(order)
    keys_N = keys_of(texts, orders)
    keys_N["group"] = hold_out.groups(names, keys_N["side"])
    listed = hold_out.listed(chunk.names)
    called = names if kind.has_names else None
    return Examined(keys_N, texts, called, drops, changes, listed, len(chunk.texts))


@dataclass
class Selected:
    """What is left of a partition without its repeated sequences.

    Attributes:
        num_kept: sequences.
        repeated: the others, in the order of the input.
        candidates: groups among which an edge of what is held out has to be found.
        counts: of the tokens that are kept.
    """

    num_kept: int
    repeated: list[Drop]
    candidates: np.ndarray
    counts: Counter[str]


def select(partition: int, folder: Path, target: Path, kind: Kind, hold_out: HoldOut) -> Selected:
    """Keep the first of equal sequences, put them in the order of their hashes.

    Where equal ones are of several groups, the one that is held out is kept, so that it is not trained on.
    """
    keys_N, texts = read_partition(folder, partition)
    names = read_names(folder, partition)
    order_N = np.lexsort((keys_N["order"], keys_N["group"], keys_N["side"], keys_N["hash"]))
    keys_N = keys_N[order_N]
    is_new_N = np.ones(len(keys_N), dtype=bool)
    same = (keys_N["hash"][1:] == keys_N["hash"][:-1]) & (keys_N["side"][1:] == keys_N["side"][:-1])
    is_new_N[1:] = ~same
    kept = [texts[row] for row in order_N[is_new_N].tolist()]
    places = zip(keys_N["order"][~is_new_N].tolist(), order_N[~is_new_N].tolist(), strict=True)
    repeated = [Drop(order, "repeated", names[row] if names else "") for order, row in places]
    keys_N = keys_N[is_new_N]
    write_partition(target, partition, keys_N, kept)
    candidates = hold_out.candidates(keys_N["group"])
    return Selected(len(kept), sorted(repeated), candidates, kind.count(kept))


@dataclass
class Encoded:
    """What a partition gives to each split.

    Attributes:
        lengths: for each, how many sequences have so many tokens, begin and end included.
        drops: sequences with tokens outside the vocabulary.
    """

    lengths: dict[str, Counter[int]]
    drops: list[Drop]


def encode(partition: int, folder: Path, vocabulary: Path, edges: list[int], kind: Kind) -> Encoded:
    """Token ids of a partition, for each split one file of ids and one of lengths, both uint16.

    Args:
        edges: of the groups of each split that is held out, one after the other from zero.
    """
    tokenizer = kind.tokenizer(str(vocabulary))
    keys_N, texts = read_partition(folder, partition)
    problems = kind.problems(tokenizer, texts)
    drops = sorted(
        Drop(int(keys_N["order"][row]), reason) for row, reason in enumerate(problems) if reason
    )
    is_good_N = np.array([reason is None for reason in problems], dtype=bool)
    split_N = np.searchsorted(np.array(edges, np.uint64), keys_N["group"], side="right")
    result = Encoded({}, drops)
    for number, split in enumerate(kind.splits):
        # Training is first, and has what is above all edges.
        is_there_N = is_good_N & (split_N == (number - 1) % len(kind.splits))
        table = tokenizer.encode([texts[row] for row in np.flatnonzero(is_there_N).tolist()])
        lengths_N = table.lengths.astype(np.uint16)
        result.lengths[split] = Counter(lengths_N.tolist())
        if len(table):
            (folder / f"{partition:03d}.{split}.ids").write_bytes(table.ids.tobytes())
            (folder / f"{partition:03d}.{split}.lengths").write_bytes(lengths_N.tobytes())
    return result
