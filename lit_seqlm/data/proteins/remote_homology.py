"""Folds of protein domains: TAPE's and DeepSF's remote homology, as far as its sequences could be recovered."""

import csv
from collections.abc import Iterator
from typing import Any

from lit_seqlm.data.annotated_table import OUTSIDE, AnnotatedTable
from lit_seqlm.data.input_rows import InputRow
from lit_seqlm.data.property_source import Dropped
from lit_seqlm.data.proteins.cleaning import clean
from lit_seqlm.data.proteins.published import PublishedFiles

TESTS = ("fold", "superfamily", "family")


class RemoteHomology:
    """The fold of a domain, where tests hold out whole superfamilies, families, or single domains of it.

    TAPE has 12,312 training domains and 1,195 folds; here are those whose sequences could be recovered, so no number
    is comparable. The classes are the folds of the training part; a domain of another fold is scored as wrong.
    """

    site, measure, tests = "chain", "top1", TESTS

    def __init__(self, data_dir: str):
        self.name = "remote_homology"
        self.files = PublishedFiles("remote_homology", self.name, data_dir)
        self._rows: list[dict[str, str]] | None = None
        self._classes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Folds of the training part, by name."""
        if not self._classes:
            folds = {row["fold"] for row in self._read() if row["split"] == "train"}
            self._classes = tuple(sorted(folds))
        return self._classes

    @property
    def card(self) -> dict[str, Any]:
        return {
            "partial": "2,270 of 12,312 training domains, 204 of 1,254 and 277 of 1,272 test domains",
            "folds": len(self.classes),
            "other_folds": "test domains whose fold is not trained on are scored as wrong",
        }

    def digest(self) -> str:
        return self.files.digest()

    def fetch(self) -> None:
        self.files.fetch()

    def table(self, split: str, tokenizer: Any) -> AnnotatedTable:
        number_of = {fold: number for number, fold in enumerate(self.classes)}
        wanted = f"test_{split}" if split in TESTS else split
        table = AnnotatedTable([], [], labels := [])
        for place, row in enumerate(self._read(), start=1):
            if row["split"] != wanted:
                continue
            found = clean(row["sequence"], tokenizer.ambiguous, False)
            if found.sequence is None:
                table.dropped.append(Dropped(place, f"{row['scop_id']}: {found.reason}"))
                continue
            table.names.append(row["scop_id"])
            table.sequences.append(found.sequence)
            labels.append(number_of.get(row["fold"], OUTSIDE))
        return table

    def rows(self, path: str, column: str | None, tokenizer: Any) -> Iterator[InputRow]:
        from lit_seqlm.data.proteins.rows import protein_rows

        return protein_rows(path, column, tokenizer)

    def _read(self) -> list[dict[str, str]]:
        if self._rows is None:
            self.fetch()
            with open(self.files["recoverable_three_level.tsv"], encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return self._rows
