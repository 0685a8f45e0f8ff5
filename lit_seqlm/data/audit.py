"""What is wrong with a split, said before anything is trained on it."""

# N = sequences, K = targets

import logging
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lit_seqlm.data.corpus import SPLITS
from lit_seqlm.data.properties import PropertyData
from lit_seqlm.data.splits import split_hash
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)

NUM_DRAWS = 20  # random splits that the overlap of scaffolds is compared with
NEAR_STANDARD = 1e-3  # a mean this near 0 and a deviation this near 1 are no measurement's


@dataclass(frozen=True)
class Overlap:
    """How many test sequences with a group, such as a scaffold, share it with a training sequence.

    Attributes:
        share: in this split; NaN where no test sequence has a group.
        random_mean, random_std: the same over random splits of the same sizes.
    """

    share: float
    random_mean: float
    random_std: float


@dataclass(frozen=True)
class LabelRange:
    """Labels of one target over the training split, in its unit; what test has outside of it."""

    name: str
    unit: str
    num_labels: int
    low: float
    high: float
    mean: float
    std: float
    num_outside: int

    @property
    def looks_standardised(self) -> bool:
        return abs(self.mean) < NEAR_STANDARD and abs(self.std - 1) < NEAR_STANDARD


@dataclass(frozen=True)
class Audit:
    """What `audit` found.

    Attributes:
        sizes, dropped: rows of each split, and rows that are not used.
        hash: of the rows of all splits.
        overlap: of the groups of test with those of training.
        exact_duplicates: test rows that are also in training, labels aside.
        merged_duplicates: the same where finer marks, such as stereo, are overlooked.
        conflicting: training rows that a model cannot tell apart though their labels differ.
        same_labels: pairs of targets with the very same numbers.
        words: what groups are called (empty where there are none), and what `merged` overlooks.
    """

    name: str
    sizes: dict[str, int]
    dropped: dict[str, int]
    hash: str
    overlap: Overlap
    exact_duplicates: int
    merged_duplicates: int
    conflicting: int
    same_labels: list[tuple[str, str]]
    ranges: list[LabelRange]
    words: tuple[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        found = asdict(self)
        del found["words"]
        suspects = [target.name for target in self.ranges if target.looks_standardised]
        return {**found, "looks_standardised": suspects}

    def lines(self) -> list[str]:
        """A short table, for a person."""
        test, overlap = self.sizes["test"], self.overlap
        group_word, mark_word = self.words
        rows = [
            ("rows", " / ".join(f"{self.sizes[split]:,}" for split in SPLITS)),
            ("not used", " / ".join(f"{self.dropped[split]:,}" for split in SPLITS)),
            *([(f"{group_word} of test in train", _tell(overlap))] if group_word else []),
            ("test rows also in train", f"{self.exact_duplicates} of {test:,}"),
            (f"  {mark_word} overlooked", f"{self.merged_duplicates} of {test:,}"),
            ("alike with other labels", f"{self.conflicting} rows of train"),
        ]
        rows += [("the same labels", f"{one} and {two}") for one, two in self.same_labels]
        for target in self.ranges:
            rows.append((target.name, _tell_range(target)))
        return [f"  {label:<27} {value}" for label, value in rows]

    def report(self) -> None:
        """The table in the log, and a warning for what makes numbers incomparable."""
        log.info("audit of data=%s\n%s", self.name, "\n".join(self.lines()))
        for target in self.ranges:
            if target.looks_standardised and target.unit != "standardised":
                log.warning(
                    "data=%s: the labels of %s have mean 0 and deviation 1: they look standardised, "
                    "so an error in them is not in %s",
                    self.name,
                    target.name,
                    target.unit or "a unit",
                )


def audit(data: PropertyData) -> Audit:
    """Compare the splits of labelled data with each other, and labels with themselves."""
    data.setup()
    tables, source = data.tables, data.source
    duplicates = []
    for merged in (False, True):
        train = set(source.identities(tables["train"].written, merged))
        test = source.identities(tables["test"].written, merged)
        duplicates.append(sum(key in train for key in test))
    groups = {split: source.groups(tables[split].sequences) for split in SPLITS}
    return Audit(
        name=source.name,
        sizes={split: len(tables[split]) for split in SPLITS},
        dropped={split: len(data.dropped[split]) for split in SPLITS},
        hash=split_hash({split: tables[split].rows_N for split in SPLITS}),
        overlap=group_overlap(groups),
        exact_duplicates=duplicates[0],
        merged_duplicates=duplicates[1],
        conflicting=num_conflicting(tables["train"].sequences, tables["train"].labels_NK),
        same_labels=_same_labels(data),
        ranges=_ranges(data),
        words=(source.group_word, source.mark_word),
    )


def group_overlap(groups: dict[str, list[str]]) -> Overlap:
    """Share of test sequences with a group whose group is in training, here and in random splits."""
    whole = np.array([group for split in SPLITS for group in groups[split]], dtype=object)
    num_train, num_test = len(groups["train"]), len(groups["test"])
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(NUM_DRAWS):
        drawn = whole[rng.permutation(len(whole))]
        shares.append(_shared(drawn[:num_train].tolist(), drawn[len(drawn) - num_test :].tolist()))
    known = [share for share in shares if not math.isnan(share)] or [math.nan]
    share = _shared(groups["train"], groups["test"])
    return Overlap(share, float(np.mean(known)), float(np.std(known)))


def num_conflicting(sequences: list[str], labels_NK: np.ndarray) -> int:
    """Rows whose sequence another row has too, with a label that differs; missing ones never do."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sequence in enumerate(sequences):
        rows[sequence].append(row)
    found = 0
    for alike in rows.values():
        if len(alike) > 1:
            spread_K = np.ma.masked_invalid(labels_NK[alike]).ptp(axis=0)
            if np.ma.filled(spread_K, 0).any():
                found += len(alike)
    return found


def _shared(train: list[str], test: list[str]) -> float:
    known, asked = set(train), [group for group in test if group]
    return sum(group in known for group in asked) / len(asked) if asked else math.nan


def _same_labels(data: PropertyData) -> list[tuple[str, str]]:
    labels_NK, names = data.tables["train"].labels_NK, [target.name for target in data.targets]
    return [
        (names[one], names[two])
        for one in range(len(names))
        for two in range(one + 1, len(names))
        if data.kind == "regression"
        and np.array_equal(labels_NK[:, one], labels_NK[:, two], equal_nan=True)
    ]


def _ranges(data: PropertyData) -> list[LabelRange]:
    found = []
    for column, target in enumerate(data.targets):
        labels, test = (data.tables[split].labels_NK[:, column] for split in ("train", "test"))
        labels = labels[~np.isnan(labels)]
        if not len(labels):
            raise UserError(
                f"data={data.source.name}: no training row has a label of {target.name}."
            )
        low, high = float(labels.min()), float(labels.max())
        outside = int(((test < low) | (test > high)).sum())
        mean, std = float(labels.mean()), float(labels.std())
        found.append(
            LabelRange(target.name, target.unit, len(labels), low, high, mean, std, outside)
        )
    return found


def _tell(overlap: Overlap) -> str:
    if math.isnan(overlap.share):
        return "no test sequence has one"
    return f"{overlap.share:.2f} (at random {overlap.random_mean:.2f} ± {overlap.random_std:.2f})"


def _tell_range(target: LabelRange) -> str:
    unit = f" {target.unit}" if target.unit else ""
    notes = f", {target.num_outside} test labels outside" if target.num_outside else ""
    notes += ", looks standardised" if target.looks_standardised else ""
    return (
        f"{target.low:.4g} to {target.high:.4g}{unit}, mean {target.mean:.4g}, "
        f"std {target.std:.4g}, {target.num_labels:,} labels{notes}"
    )
