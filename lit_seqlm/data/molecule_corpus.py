"""Unlabelled molecules in memory: some hundred thousand strings, for pretraining on one machine."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_seqlm.data.chemistry.canonical import version
from lit_seqlm.data.chemistry.rows import read_rows
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.molecule_forms import molecule_forms
from lit_seqlm.data.molecule_rows import molecule_rows
from lit_seqlm.data.property_source import PropertySource
from lit_seqlm.data.stream import at_least_one
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)


class MoleculeCorpus:
    """A random part of one file of SMILES for training and validation, of another for the test.

    Validation is never trained on, and a test molecule that training or validation holds is left out. Canonical
    strings are kept in `cache_dir`.

    Args:
        name: of the corpus, for messages.
        data_dir: below it are `train` and `test`: any file that `lit_seqlm.data.chemistry.rows` reads.
        column: of the SMILES, in both.
        num_train: molecules drawn from the training file; null takes all.
        num_heldout: molecules drawn for validation, from the training file, and for the test.
        also: labelled sets whose training strings join the training split, without their labels.
        home: where a person gets the files.
        seed: of the draw.
    """

    def __init__(
        self,
        name: str,
        data_dir: str,
        train: str,
        test: str,
        column: str,
        num_train: int | None,
        num_heldout: int,
        also: Sequence[PropertySource],
        home: str,
        cache_dir: str | None,
        seed: int,
    ):
        at_least_one("source.num_heldout", num_heldout)
        at_least_one("source.num_train", 1 if num_train is None else num_train)
        self.name, self.column, self.home = name, column, home
        self.paths = {"train": Path(data_dir) / train, "test": Path(data_dir) / test}
        self.num_train, self.num_heldout, self.also = num_train, num_heldout, list(also)
        self.cache_dir, self.seed = cache_dir, seed
        self._splits: dict[bool, dict[str, list[str]]] = {}  # by whether strings are isomeric

    def digest(self) -> str:
        """Of what the config does not say: the files' sizes, the sets beside them, RDKit's version."""
        self.fetch()
        said = {
            "files": [[path.name, path.stat().st_size] for path in self.paths.values()],
            "also": [[other.name, other.digest()] for other in self.also],
            "rdkit": version(),
        }
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def fetch(self) -> None:
        """Raise UserError where a file is missing."""
        for path in self.paths.values():
            if not path.is_file():
                raise UserError(
                    f"data={self.name}: there is no {path}. Get it from {self.home}, and let paths.data_dir (or "
                    "LIT_SEQLM_DATA) name the folder it lies under."
                )
        for other in self.also:
            other.fetch()

    def sequences(self, split: str, tokenizer: Any) -> list[str]:
        """Canonical SMILES of a split, as `tokenizer` wants them; no string twice."""
        if tokenizer.isomeric not in self._splits:
            self._splits[tokenizer.isomeric] = self._draw(tokenizer)
        return self._splits[tokenizer.isomeric][split]

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        """Molecules of any other file; SMILES as `tokenizer.isomeric` says."""
        return molecule_rows(path, column, tokenizer.isomeric)

    def _draw(self, tokenizer: Any) -> dict[str, list[str]]:
        rng = np.random.default_rng(self.seed)
        rows = self._read("train")
        wanted = self.num_heldout + (1 if self.num_train is None else self.num_train)
        if wanted > len(rows):
            raise UserError(
                f"data={self.name}: data.source.num_train={self.num_train}, num_heldout="
                f"{self.num_heldout}: {self.paths['train'].name} has {len(rows):,} rows."
            )
        last = None if self.num_train is None else self.num_heldout + self.num_train
        drawn = [rows[index] for index in rng.permutation(len(rows))[:last]]
        tested = self._read("test")
        tested = [tested[index] for index in rng.permutation(len(tested))[: self.num_heldout]]
        valid = self._canonical(drawn[: self.num_heldout], tokenizer, "validation")
        train = self._canonical(drawn[self.num_heldout :], tokenizer, "training")
        for other in self.also:
            train += other.table("train", tokenizer).sequences
        known = set(valid)
        train = [one for one in dict.fromkeys(train) if one not in known]
        known.update(train)
        test = [one for one in self._canonical(tested, tokenizer, "test") if one not in known]
        return {"train": train, "valid": valid, "test": test}

    def _canonical(self, written: list[str], tokenizer: Any, what: str) -> list[str]:
        """Each molecule once, in the order of its first string."""
        where = f"data={self.name}, {what}"
        log.info("%s: canonical SMILES of %s molecules, once", where, f"{len(written):,}")
        forms = molecule_forms(written, tokenizer.isomeric, self.cache_dir, where)
        found = list(dict.fromkeys(one for one in forms.smiles if one))
        bad = [(row, reason) for row, reason in enumerate(forms.reasons) if reason]
        if bad:
            row, reason = bad[0]
            log.warning(
                "%s: %d strings left out, first %r: %s", where, len(bad), written[row], reason
            )
        return found

    def _read(self, split: str) -> list[str]:
        path = self.paths[split]
        log.info("%s: reading %s", self.name, path.name)
        rows = [row.smiles for row in read_rows(str(path), self.column)]
        if not rows:
            raise UserError(f"data={self.name}: {path} has no molecules.")
        return rows
