"""Folds of protein domains: TAPE's and DeepSF's remote homology, as far as its sequences could be recovered."""

import csv
import logging
from typing import Any

from lit_seqlm.data.annotated_table import OUTSIDE, AnnotatedTable
from lit_seqlm.data.proteins.labelled import Labelled, comparable, labelled_table
from lit_seqlm.data.proteins.published import PublishedFiles
from lit_seqlm.data.proteins.rows import ProteinRows

log = logging.getLogger(__name__)

TESTS = ("fold", "superfamily", "family")
# Split of the list -> its file: all domains that TAPE has, without their sequences.
LISTS = {"train": "Traindata.list", "valid": "validation.list"}
LISTS |= {test: f"test_dataset.list_{test}" for test in TESTS}
FOLD = 2  # its column there


class Folds:
    """What sources of folds share: the classes are the folds of the training part, others can only be wrong."""

    site, measure, tests = "chain", "top1", TESTS
    name: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Folds of the training part, by name."""
        raise NotImplementedError

    def with_classes(self, table: AnnotatedTable, split: str) -> AnnotatedTable:
        """A table whose labels were names of folds, with their classes."""
        number_of = {fold: number for number, fold in enumerate(self.classes)}
        numbers = [number_of.get(fold, OUTSIDE) for fold in table.labels]
        if num_outside := numbers.count(OUTSIDE):
            log.warning(
                "data=%s, %s: %d of %d domains have a fold that is not trained on: scored as wrong",
                self.name, split, num_outside, len(table),
            )  # fmt: skip
        table.labels = numbers
        return table


class RemoteHomology(ProteinRows, Folds):
    """The fold of a domain, where tests hold out whole superfamilies, families, or single domains of it.

    TAPE has 12,312 training domains of 1,195 folds; here are those whose sequences could be recovered (2,270 of 516
    folds), so no number is comparable with a published one.

    Args:
        drop_test_overlaps: leave out domains of training and validation whose sequence is also a test's; they are told.
    """

    def __init__(self, data_dir: str, drop_test_overlaps: bool):
        self.name, self.drop_test_overlaps = "remote_homology", drop_test_overlaps
        self.files = PublishedFiles("remote_homology", self.name, data_dir)
        self._rows: list[dict[str, str]] = []
        self._classes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        if not self._classes:
            self._classes = tuple(sorted({one.label for one in self._learnt()}))
        return self._classes

    @property
    def card(self) -> dict[str, Any]:
        listed = self._listed("train")
        folds = {line.split("\t")[FOLD] for line in listed}
        said = (
            f"partial: {len(self._learnt()):,} of {len(listed):,} training domains, "
            f"{len(self.classes):,} of {len(folds):,} folds"
        )
        return {"data": said, "other_folds": "counted as wrong"}

    def digest(self) -> str:
        return self.files.digest()

    def fetch(self) -> None:
        self.files.fetch()

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        where = f"data={self.name}, {split}"
        found = labelled_table(self._of(split), tokenizer, where, self._tested(split))
        return self.with_classes(found, split)

    def num_listed(self, split: str) -> int:
        """Domains that TAPE has of a split, with or without a sequence here."""
        return len(self._listed(split))

    def _listed(self, split: str) -> list[str]:
        """Lines of the list: domain, length, fold, superfamily."""
        self.fetch()
        return self.files[LISTS[split]].read_text("utf-8").splitlines()

    def _learnt(self) -> list[Labelled]:
        """Domains of the training split that are no test's."""
        tested = self._tested("train")
        return [one for one in self._of("train") if comparable(one.sequence) not in tested]

    def _of(self, split: str) -> list[Labelled]:
        """Domains of a split; the label is the name of the fold."""
        wanted = f"test_{split}" if split in TESTS else split
        return [
            Labelled(number, row["scop_id"], row["sequence"], row["fold"])
            for number, row in enumerate(self._read(), start=1)
            if row["split"] == wanted
        ]

    def _tested(self, split: str) -> dict[str, str]:
        if split in TESTS or not self.drop_test_overlaps:
            return {}
        return {
            comparable(one.sequence): f"test {test}" for test in TESTS for one in self._of(test)
        }

    def _read(self) -> list[dict[str, str]]:
        if not self._rows:
            self.fetch()
            with open(self.files["recoverable_three_level.tsv"], encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return self._rows
