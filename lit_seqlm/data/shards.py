"""Reading a prepared corpus: each sequence once an epoch, over any number of readers, from any place on."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.errors import UserError

MANIFEST, VOCABULARY = "manifest.json", "vocabulary.txt"
UNBOUNDED = 2**62  # bytes
FORMAT = 1  # raised when an older reader would misread


class ShardSource:
    """The folder that `experiments/prepare_corpus.py` wrote.

    Args:
        folder: with its ``manifest.json``.

    Raises:
        UserError: if it is no such folder, or if files of it are missing.
    """

    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.name = self.folder.name
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text("utf-8"))
        except (OSError, json.JSONDecodeError):
            raise UserError(
                f"{folder} is no prepared corpus: it has no readable {MANIFEST}. Make one with "
                "python experiments/prepare_corpus.py INPUT --output FOLDER."
            ) from None
        if self.manifest.get("format") != FORMAT:
            raise UserError(
                f"{folder} has format {self.manifest.get('format')}, this program reads {FORMAT}. "
                "Prepare the corpus again."
            )
        self._check_files()

    @property
    def vocabulary(self) -> str:
        """The file of the tokens, one a line."""
        return str(self.folder / VOCABULARY)

    @property
    def kind(self) -> str:
        """``molecule`` or ``protein``; what it counts is named after it."""
        return self.manifest.get("kind", "molecule")

    @property
    def splits(self) -> list[str]:
        return list(self.manifest["splits"])

    def tokenizer_state(self) -> dict[str, Any]:
        """What the ids in the shards mean, as tokenizers keep it."""
        tokens = Path(self.vocabulary).read_text("utf-8").splitlines()
        if self.kind == "molecule":
            return {"vocabulary": tokens, "isomeric": self.isomeric}
        return {"vocabulary": tokens, **self.manifest["tokenizer"]}

    @property
    def isomeric(self) -> bool:
        """Of molecules: whether their SMILES have stereo marks."""
        return self.manifest["canonical"]["isomeric"]

    def digest(self) -> str:
        """Of all files: tells this corpus from another in a folder of the same name."""
        files = json.dumps(self.manifest["files"], sort_keys=True)
        return hashlib.sha256(files.encode()).hexdigest()[:16]

    def num_sequences(self, split: str) -> int:
        return self._split(split)[f"{self.kind}s"]

    def num_tokens(self, split: str) -> int:
        """With begin and end of each sequence."""
        return self._split(split)["tokens"]

    def lengths(self, split: str) -> dict[int, int]:
        """How many sequences have so many tokens, begin and end included."""
        return {int(n): count for n, count in self._split(split)["lengths"].items()}

    @property
    def longest(self) -> tuple[int, str]:
        """Tokens of the longest sequence of all splits, begin and end included, and the split that has it."""
        found = ((length, split) for split in self.splits for length in self.lengths(split))
        return max(found, key=lambda one: one[0], default=(0, ""))

    @property
    def block(self) -> int:
        """Sequences that are read at once."""
        return self.manifest["block"]

    def open(self, split: str, seed: int, epoch: int, rank: int, world_size: int) -> "ShardStream":
        """One reader's part of an epoch.

        Args:
            seed: of the order, with the epoch; validation keeps the order of its file.
            rank, world_size: which of how many readers this is. With several loading processes a
                device, each of them is a reader.
        """
        if not 0 <= rank < world_size:
            raise UserError(f"reader {rank} of {world_size}: count from 0.")
        blocks = _Blocks(
            self.num_sequences(split), self.block, self.manifest[f"shard_{self.kind}s"]
        )
        order = blocks.order(seed, epoch) if split == "train" else np.arange(blocks.count)
        return ShardStream(
            self.folder / split,
            order[rank::world_size],
            blocks,
            {"split": split, "seed": seed, "epoch": epoch, "rank": rank, "world_size": world_size},
        )

    def _check_files(self) -> None:
        """A copy that broke off has a file too few, or a short one."""
        for name, said in self.manifest["files"].items():
            path = self.folder / name
            size = path.stat().st_size if path.is_file() else None
            if size != said["bytes"]:
                has = "is missing" if size is None else f"has {size:,} bytes"
                raise UserError(
                    f"{path} {has}, it should have {said['bytes']:,}. Copy the folder again, whole."
                )

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.manifest["splits"]:
            raise UserError(f"{self.folder} has no {split!r}. It has {' and '.join(self.splits)}.")
        return self.manifest["splits"][split]


class _Blocks:
    """Sequences lie in blocks of one size, blocks in files of one size; the last of each may be shorter."""

    def __init__(self, num_sequences: int, size: int, file_size: int):
        self.num_sequences, self.size = num_sequences, size
        self.count = -(-num_sequences // size)
        self.per_file = max(1, file_size // size)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Files in random order, and the blocks of each: what is read together lies together."""
        rng = np.random.default_rng([seed, epoch])
        firsts = rng.permutation(np.arange(0, self.count, self.per_file))
        parts = [
            first + rng.permutation(min(self.per_file, self.count - first)) for first in firsts
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def num_in(self, blocks: np.ndarray) -> int:
        """Sequences of some blocks."""
        num_short = self.count * self.size - self.num_sequences
        return len(blocks) * self.size - (num_short if self.count - 1 in blocks else 0)


class ShardStream(Iterator[np.ndarray]):
    """One reader's sequences of one epoch: uint16 ids of each, begin and end included.

    A block is read at once and its sequences are shuffled by (seed, epoch, block), so memory is that
    of one block, and the place in an epoch is two numbers. Readers get blocks in turn, so that their
    numbers of sequences differ by less than two blocks.

    Args:
        folder: the litdata dataset of a split.
        order: this reader's blocks.
        identity: what the order depends on; kept beside the place.
    """

    def __init__(self, folder: Path, order: np.ndarray, blocks: _Blocks, identity: dict[str, Any]):
        self.folder, self.order, self.identity = folder, order, identity
        self.num_sequences = blocks.num_in(order)
        self.block, self.offset = 0, 0  # the next sequence to hand out: block of `order`, and in it
        self._sequences: list[np.ndarray] = []
        self._shards: Any = None

    def __len__(self) -> int:
        """Sequences of the whole epoch, those handed out included."""
        return self.num_sequences

    def __next__(self) -> np.ndarray:
        if not self._sequences:
            if self.block >= len(self.order):
                raise StopIteration
            self._sequences = self._read(int(self.order[self.block]))
        sequence = self._sequences[self.offset]
        self.offset += 1
        if self.offset == len(self._sequences):
            self.block, self.offset, self._sequences = self.block + 1, 0, []
        return sequence

    def state_dict(self) -> dict[str, Any]:
        """Where it stands; a stream that loads it goes on with the very next sequence."""
        return {**self.identity, "block": self.block, "offset": self.offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raise UserError for the place in another stream: another seed, epoch or number of readers."""
        for key, value in self.identity.items():
            if state.get(key) != value:
                raise UserError(
                    f"this place in the corpus belongs to {key}={state.get(key)}, the run has {key}={value}. "
                    "Continue with as many devices and loading processes, and the same seed."
                )
        self.block, self.offset, self._sequences = state["block"], state["offset"], []

    def _read(self, block: int) -> list[np.ndarray]:
        if self._shards is None:
            self._shards = _open_shards(self.folder)
        lengths_N, ids = self._shards[block]
        sequences = np.split(ids, np.cumsum(lengths_N[:-1], dtype=np.int64))
        if self.identity["split"] != "train":
            return sequences
        rng = np.random.default_rng([self.identity["seed"], self.identity["epoch"], block])
        return [sequences[row] for row in rng.permutation(len(sequences))]


def cache_class() -> Any:
    """litdata's reader and writer of shards.

    Raises:
        UserError: it is an extra, and not installed.
    """
    try:
        from litdata.streaming import Cache
    except ImportError:
        raise UserError(
            "shards need litdata: pip install lit-seqlm[shards]. data=moses reads molecules without it."
        ) from None
    return Cache


def _open_shards(folder: Path) -> Any:
    # A size of chunks is for writing only; files are read where they lie, so no cache has to be bounded.
    return cache_class()(str(folder), chunk_size=1, max_cache_size=UNBOUNDED)
