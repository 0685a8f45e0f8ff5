"""Unlabelled proteins in memory: some hundred thousand sequences, for pretraining on one machine."""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.proteins.cleaning import Record, cleaned
from lit_seqlm.data.proteins.rows import ProteinRows
from lit_seqlm.data.proteins.sources import read_records
from lit_seqlm.data.proteins.split_lists import read_split_list
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)


class ProteinCorpus(ProteinRows):
    """One file of proteins, divided by a list of what is held out.

    Of equal sequences the first is kept. A sequence of another length than the list was made for is left
    out, and counted.

    Args:
        name: of the corpus, for messages.
        data_dir: below it is `path`: FASTA, Swiss-Prot's flat file, a table, JSON lines; any of them may be ``.gz``.
        split: a list of `experiments/split_proteins.py`: the name of one that the program brings along, or a file.
        num_train: so many of the training split, drawn by `seed`; null: all.
        min_len, max_len: residues; others are left out.
        home: where a person gets the file.
    """

    def __init__(
        self,
        name: str,
        data_dir: str,
        path: str,
        split: str,
        num_train: int | None,
        min_len: int,
        max_len: int | None,
        home: str,
        seed: int,
    ):
        at_least_one("source.num_train", 1 if num_train is None else num_train)
        self.name, self.path, self.home = name, Path(data_dir) / path, home
        self.split, self.num_train, self.seed = split, num_train, seed
        self.min_len, self.max_len = min_len, max_len
        self._digest = ""
        self._splits: dict[str, dict[str, list[str]]] = {}  # by how the tokenizer wants them

    def digest(self) -> str:
        """Of the file and of the list: tells a corpus that has changed from the one that was trained on."""
        if not self._digest:
            self.fetch()
            held_out, sha256 = read_split_list(self.split), pooch.file_hash(str(self.path))
            held_out.check_source(self.path.name, sha256)
            held_out.check_lengths(self.min_len, self.max_len)
            said = json.dumps([sha256, held_out.digest()])
            self._digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return self._digest

    def fetch(self) -> None:
        """Raise UserError where the file is missing."""
        if not self.path.is_file():
            raise UserError(
                f"data={self.name}: there is no {self.path}. Get it from {self.home}, and let paths.data_dir (or "
                "LIT_SEQLM_DATA) name the folder it lies under."
            )

    def sequences(self, split: str, tokenizer: Any) -> list[str]:
        """Of a split, clean; no sequence twice."""
        key = json.dumps([tokenizer.ambiguous, tokenizer.gapped])
        if key not in self._splits:
            self._splits[key] = self._divide(tokenizer)
        return self._splits[key][split]

    def _divide(self, tokenizer: Any) -> dict[str, list[str]]:
        self.digest()  # refuses another file, and other lengths, than the list was made for
        held_out = read_split_list(self.split)
        log.info("%s: reading %s", self.name, self.path.name)
        splits: dict[str, dict[str, None]] = {split: {} for split in SPLITS}
        num_read = num_other = 0
        for name, sequence in cleaned(self._records(), tokenizer, f"data={self.name}"):
            num_read += 1
            split = held_out.split_of(name)
            if not self.min_len <= len(sequence) <= (self.max_len or len(sequence)):
                num_other += 1
                continue
            splits[split].setdefault(sequence)
        if "sha256" not in held_out.made:  # else it is the very file of the list
            held_out.check_used(self.path.name)
        found = self._without_repeats(splits)
        num_left = sum(map(len, found.values()))
        log.info(
            "%s: of %s proteins %s have another length than %s to %s, %s repeat another", self.name, f"{num_read:,}",
            f"{num_other:,}", self.min_len, self.max_len or "any", f"{num_read - num_other - num_left:,}",
        )  # fmt: skip
        return found | {"train": self._drawn(found["train"])}

    def _records(self) -> Iterator[Record]:
        return read_records(str(self.path))

    @staticmethod
    def _without_repeats(splits: dict[str, dict[str, None]]) -> dict[str, list[str]]:
        """What is held out stays; the same sequence is not trained on."""
        held_out = splits["valid"] | splits["test"]
        return {
            "train": [one for one in splits["train"] if one not in held_out],
            "valid": [one for one in splits["valid"] if one not in splits["test"]],
            "test": list(splits["test"]),
        }

    def _drawn(self, train: list[str]) -> list[str]:
        if self.num_train is None:
            return train
        if self.num_train > len(train):
            raise UserError(
                f"data={self.name}: data.source.num_train={self.num_train}: there are {len(train):,}."
            )
        order = np.random.default_rng(self.seed).permutation(len(train))[: self.num_train]
        return [train[place] for place in np.sort(order)]
