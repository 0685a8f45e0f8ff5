"""Three tasks of TAPE in its own files: secondary structure, contacts (ProteinNet), remote homology."""

# L = residues of a protein

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from lit_seqlm.data.annotated_table import AnnotatedTable
from lit_seqlm.data.proteins.labelled import Labelled, labelled_table
from lit_seqlm.data.proteins.remote_homology import TESTS, Folds
from lit_seqlm.data.proteins.rows import ProteinRows
from lit_seqlm.data.proteins.secondary_structure import CLASSES, TRAIN_ON, resolved_only
from lit_seqlm.data.proteins.sources import text_of
from lit_seqlm.data.proteins.structures import Contacts
from lit_seqlm.data.proteins.tape_files import DATA, read_tape, tape_file
from lit_seqlm.errors import UserError


class TapeTask(ProteinRows):
    """A task's files, one a split: ``TASK_SPLIT.lmdb`` or ``TASK_SPLIT.json``.

    Attributes:
        name: as the user says it, for messages.
        task: as TAPE's files say it.
        files: what a file calls a split, where that is not its name here.

    Args:
        data_dir: below it is `path`, the folder of the files.
    """

    name: str
    task: str
    tests: tuple[str, ...]
    files: dict[str, str]

    def __init__(self, data_dir: str, path: str):
        self.folder = Path(data_dir) / path

    def digest(self) -> str:
        """Of what the files hold."""
        paths = [self._file(split) for split in ("train", "valid", *self.tests)]
        whole = [path / DATA if path.is_dir() else path for path in paths]
        said = json.dumps([pooch.file_hash(str(path)) for path in whole])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def fetch(self) -> None:
        """Raise UserError where a split is missing."""
        for split in ("train", "valid", *self.tests):
            self._file(split)

    def labelled(self, split: str, tokenizer: Any) -> AnnotatedTable:
        """A split, with labels as `label` gives them."""
        where = f"data={self.name}, {split}"
        return labelled_table(self.proteins(split), tokenizer, where, {})

    def proteins(self, split: str) -> Iterator[Labelled]:
        """As the file has them."""
        for number, record in enumerate(read_tape(self._file(split)), start=1):
            name = record.get("id", number)
            name = name.decode() if isinstance(name, bytes) else str(name)
            where = f"data={self.name}, {split}, {name}"
            sequence = text_of(value_of(record, "primary", where), where, "primary")
            yield Labelled(number, name, sequence, *self.label(record, where))

    def label(self, record: dict[str, Any], where: str) -> tuple[Any, dict[str, np.ndarray]]:
        """Label and scopes of a protein."""
        raise NotImplementedError

    def _file(self, split: str) -> Path:
        try:
            return tape_file(self.folder, self.task, self.files.get(split, split))
        except UserError as error:
            raise UserError(
                f"data={self.name}: {error} Let paths.data_dir (or LIT_SEQLM_DATA) name the folder that "
                "data.source.path lies under."
            ) from None


class TapeSecondaryStructure(TapeTask):
    """Secondary structure as TAPE has it: 8,678 chains to train on, 2,170 to validate; tests CB513, CASP12, TS115.

    Scopes: ``all``, which is how TAPE scores, and ``resolved``, its ``valid_mask``.

    Args:
        classes: 3 or 8.
        train_on: ``all`` residues, as TAPE, or the ``resolved`` ones; other splits keep every label.
    """

    name, task, site = "tape_secondary_structure", "secondary_structure", "residue"
    tests, files = ("cb513", "casp12", "ts115"), {}

    def __init__(self, data_dir: str, path: str, classes: int, train_on: str):
        if classes not in CLASSES:
            raise UserError(f"data.source.classes={classes}: choose 3 or 8.")
        if train_on not in TRAIN_ON:
            raise UserError(f"data.source.train_on={train_on}: choose {' or '.join(TRAIN_ON)}.")
        super().__init__(data_dir, path)
        self.key, self.measure, self.train_on = f"ss{classes}", f"q{classes}", train_on
        self.classes = CLASSES[classes]
        self.card: dict[str, Any] = {"learnt_from": f"TAPE's training set, {train_on} residues"}

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        table = self.labelled(split, tokenizer)
        return table if split != "train" or self.train_on == "all" else resolved_only(table)

    def label(self, record: dict[str, Any], where: str) -> tuple[Any, dict[str, np.ndarray]]:
        numbers_L = whole_numbers(record, self.key, where)
        resolved_L = mask_of(record, "valid_mask", where)
        return numbers_L, {"all": np.ones(len(numbers_L), bool), "resolved": resolved_L}


class TapeProteinNet(TapeTask, Contacts):
    """Contacts of ProteinNet (CASP12, 30 % identity): 25,299 chains to train on, 224 and 40 to validate and test.

    The files have C-alpha only, in Angstrom; what ``valid_mask`` leaves out is not scored.

    Args:
        cutoff, closed, train_separation: see `Contacts`.
    """

    name, task = "tape_proteinnet", "proteinnet"
    tests, files = ("test",), {}

    def __init__(
        self, data_dir: str, path: str, cutoff: float, closed: bool, train_separation: int
    ):
        TapeTask.__init__(self, data_dir, path)
        Contacts.__init__(self, cutoff, closed, train_separation)
        self.card: dict[str, Any] = {"contact": self.contact("C-alpha")}

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        return self.maps(self.labelled(split, tokenizer), split, 1)

    def label(self, record: dict[str, Any], where: str) -> tuple[Any, dict[str, np.ndarray]]:
        points_L3 = numbers_of(record, "tertiary", where)
        known_L = mask_of(record, "valid_mask", where)
        if points_L3.ndim != 2 or points_L3.shape[1] != 3 or len(points_L3) != len(known_L):
            raise UserError(
                f"{where}: 'tertiary' is {' x '.join(map(str, points_L3.shape))}, and 'valid_mask' has {len(known_L)} "
                "entries: three coordinates a residue are wanted."
            )
        return np.where(known_L[:, None], points_L3, np.nan).astype(np.float32), {}


class TapeRemoteHomology(TapeTask, Folds):
    """Folds as TAPE has them: 12,312 domains of 1,195 folds to train on."""

    name, task, tests = "tape_remote_homology", "remote_homology", TESTS
    files = {test: f"test_{test}_holdout" for test in TESTS}  # noqa: RUF012

    def __init__(self, data_dir: str, path: str):
        super().__init__(data_dir, path)
        self._classes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        if not self._classes:
            folds = {protein.label for protein in self.proteins("train")}
            self._classes = tuple(sorted(folds, key=int))
        return self._classes

    @property
    def card(self) -> dict[str, Any]:
        return {"folds": len(self.classes), "other_folds": "counted as wrong"}

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        return self.with_classes(self.labelled(split, tokenizer), split)

    def label(self, record: dict[str, Any], where: str) -> tuple[Any, dict[str, np.ndarray]]:
        return str(int(whole_numbers(record, "fold_label", where)[0])), {}


def value_of(record: dict[str, Any], key: str, where: str) -> Any:
    """UserError where a protein lacks it."""
    if key not in record:
        raise UserError(f"{where}: it has no {key!r}. It has: {', '.join(sorted(record))}.")
    return record[key]


def numbers_of(record: dict[str, Any], key: str, where: str) -> np.ndarray:
    """An array of one axis or more, float64; UserError where it is none."""
    value = value_of(record, key, where)
    try:
        return np.atleast_1d(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        raise UserError(f"{where}: {key!r} is no array of numbers.") from None


def mask_of(record: dict[str, Any], key: str, where: str) -> np.ndarray:
    """Which residues are there, bool; UserError where that is not known of one."""
    numbers = numbers_of(record, key, where)
    if numbers.ndim != 1 or np.isnan(numbers).any():
        raise UserError(f"{where}: {key!r} is no list of true and false, one a residue.")
    return numbers > 0


def whole_numbers(record: dict[str, Any], key: str, where: str) -> np.ndarray:
    """Classes, int16; UserError where they are none."""
    found = numbers_of(record, key, where)
    if found.ndim != 1 or not len(found) or not (found == np.round(found)).all():
        raise UserError(f"{where}: {key!r} is no list of classes, which are whole numbers.")
    least, most = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    if (outside_L := (found < least) | (found > most)).any():
        place = int(np.argmax(outside_L))
        raise UserError(
            f"{where}: {key!r} is {found[place]:.0f} at position {place + 1}; a class is a whole number from "
            f"{least} to {most}."
        )
    return found.astype(np.int16)
