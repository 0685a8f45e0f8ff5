"""How much of a test has been seen in training: equal sequences, relatives, and how alike the two are in general."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lit_seqlm.data.proteins.homology import Hit, Mmseqs
from lit_seqlm.errors import UserError
from lit_seqlm.metrics.letters import Alphabet, ngram_counts, sum_of_absolute_errors
from lit_seqlm.results import write_atomically
from lit_seqlm.tokenizer.amino_acid import RESIDUES, STANDARD

ALPHABET = Alphabet(RESIDUES, STANDARD)
BOUNDS = (0.3, 0.5, 0.9)
NUM_BINS = 20
COVERED = 0.5  # share of a test protein that an alignment has to span, to count by itself
BATCH = 20_000  # proteins counted at once
UNALIGNED = -1.0


@dataclass(frozen=True)
class Relatives:
    """What a search found. Each test protein counts by its highest identity to anything trained on.

    Attributes:
        made: the search, with its flags and the tool's version.
        min_coverage: share of the test protein that has to be aligned; what is not is counted in `any_coverage` alone.
        unaligned: test proteins without such an alignment.
        histogram: of the others, in 20 bins of 5 % identity, the last with 100 %.
        over: share of all test proteins above 0.3, 0.5 and 0.9 identity.
        any_coverage: the same where an alignment of any length counts.
    """

    made: str
    min_coverage: float
    unaligned: int
    histogram: list[int]
    over: dict[str, float]
    any_coverage: dict[str, float]


@dataclass(frozen=True)
class LeakReport:
    """A test against what is trained on.

    Attributes:
        exact: test proteins whose very sequence is trained on.
        sae_3: sum of absolute differences of the frequencies of 3-grams.
        sae_3_by_chance: that of as many proteins drawn from those trained on, against the others: what is not of
            sampling alone lies above it. Both null where nothing is three letters long.
        relatives: null where nobody searched.
    """

    test: str
    train: str
    num_test: int
    num_train: int
    exact: int
    sae_3: float | None
    sae_3_by_chance: float | None
    relatives: Relatives | None

    @property
    def exact_share(self) -> float:
        return self.exact / self.num_test

    def write(self, path: Path, **more: Any) -> None:
        """As JSON, with what else is to be known of it."""
        write_atomically(path, json.dumps(asdict(self) | more, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "LeakReport":
        """What `write` wrote, without what else was said."""
        said = json.loads(path.read_text())
        relatives = said["relatives"]
        kept = {name: said[name] for name in cls.__dataclass_fields__}
        return cls(**kept | {"relatives": None if relatives is None else Relatives(**relatives)})


def leak_report(
    test: Sequence[str],
    train: Iterable[str],
    num_train: int,
    folder: Path,
    tool: Mmseqs | None,
    labels: tuple[str, str] = ("test", "train"),
    seed: int = 0,
) -> tuple[LeakReport, np.ndarray]:
    """The report, and of each test protein its highest identity, -1 where there is no alignment.

    Args:
        train: read once, so it may be larger than memory.
        num_train: how many they are.
        folder: an empty one to work in, where both are written as FASTA.
        tool: null leaves out the search.
        seed: of the proteins that say what is chance.
    """
    if not test or not num_train:
        raise UserError(
            f"no leak report of {len(test):,} proteins against {num_train:,}: both need at least one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    queries, targets = folder / "test.fasta", folder / "train.fasta"
    write_fasta(queries, test)
    exact, sae, chance = _compared(test, _written(targets, train), num_train, seed)
    seen_N = np.isin(np.arange(len(test)), sorted(exact))
    relatives, best_N = None, np.where(seen_N, 1.0, UNALIGNED)
    if tool is not None:
        hits = list_best(tool.search(queries, targets, folder), len(test))
        wide_N, any_N = (np.where(seen_N, 1.0, found_N) for found_N in hits)
        relatives, best_N = _relatives(wide_N, any_N, tool.said("search")), wide_N
    report = LeakReport(*labels, len(test), num_train, len(exact), sae, chance, relatives)
    return report, best_N


def list_best(hits: Iterable[Hit], num_test: int) -> tuple[np.ndarray, np.ndarray]:
    """Highest identity of each test protein: over half of its length, and over any part of it."""
    wide_N, any_N = np.full(num_test, UNALIGNED), np.full(num_test, UNALIGNED)
    for hit in hits:
        row = row_of(hit.query)
        any_N[row] = max(any_N[row], hit.identity)
        if hit.coverage >= COVERED:
            wide_N[row] = max(wide_N[row], hit.identity)
    return wide_N, any_N


def write_fasta(path: Path, sequences: Iterable[str]) -> None:
    """One line a sequence; they are named by their place, so that no name is cut or read as something else."""
    with path.open("w", encoding="ascii") as file:
        for row, sequence in enumerate(sequences):
            file.write(f">n{row}\n{sequence}\n")


def read_fasta(path: Path) -> Iterator[str]:
    """Sequences that `write_fasta` wrote."""
    with path.open(encoding="ascii") as file:
        yield from (line.rstrip("\n") for line in file if not line.startswith(">"))


def row_of(name: str) -> int:
    """The place of a sequence that `write_fasta` named."""
    return int(name[1:])


def _written(path: Path, sequences: Iterable[str]) -> Iterator[str]:
    write_fasta(path, sequences)
    return read_fasta(path)


def _compared(
    test: Sequence[str], train: Iterable[str], num_train: int, seed: int
) -> tuple[set[int], float | None, float | None]:
    """Places of test sequences that are trained on; SAE of 3-grams; SAE by chance."""
    rows_of: dict[str, list[int]] = {}
    for row, sequence in enumerate(test):
        rows_of.setdefault(sequence, []).append(row)
    num_drawn = min(len(test), num_train // 2)
    is_drawn = np.zeros(num_train, bool)
    is_drawn[np.random.default_rng(seed).permutation(num_train)[:num_drawn]] = True
    drawn, others = np.zeros(len(RESIDUES) ** 3), np.zeros(len(RESIDUES) ** 3)
    exact, start = set[int](), 0
    for part in _batches(train):
        exact.update(row for sequence in part for row in rows_of.get(sequence, ()))
        inner = is_drawn[start : start + len(part)]
        drawn += ngram_counts(
            ALPHABET, 3, [one for one, yes in zip(part, inner, strict=True) if yes]
        )
        others += ngram_counts(
            ALPHABET, 3, [one for one, yes in zip(part, inner, strict=True) if not yes]
        )
        start += len(part)
    of_test = ngram_counts(ALPHABET, 3, test)
    return (
        exact,
        sum_of_absolute_errors(of_test, drawn + others),
        sum_of_absolute_errors(drawn, others),
    )


def _batches(sequences: Iterable[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for sequence in sequences:
        part.append(sequence)
        if len(part) == BATCH:
            yield part
            part = []
    if part:
        yield part


def _relatives(wide_N: np.ndarray, any_N: np.ndarray, made: str) -> Relatives:
    found_N = wide_N[wide_N >= 0]
    histogram, _ = np.histogram(found_N, NUM_BINS, (0.0, 1.0))
    wide, short = ({f"{b:g}": float((of_N > b).mean()) for b in BOUNDS} for of_N in (wide_N, any_N))
    return Relatives(made, COVERED, len(wide_N) - len(found_N), histogram.tolist(), wide, short)


def shown(reports: Sequence[LeakReport]) -> Table:
    """A column for each."""
    made = Table(
        title="what of the test is seen in training", box=SIMPLE_HEAD, title_justify="left"
    )
    made.add_column("")
    for one in reports:
        made.add_column(f"{one.test}\nagainst {one.train}", justify="right")
    made.add_row("test proteins", *(f"{one.num_test:,}" for one in reports))
    made.add_row("trained on", *(f"{one.num_train:,}" for one in reports))
    made.add_row(
        "the same sequence", *(f"{one.exact:,} ({one.exact_share:.1%})" for one in reports)
    )
    for bound in BOUNDS:
        label = f"a relative of more than {bound:.0%} identity"
        made.add_row(label, *(_cell(one.relatives, f"{bound:g}") for one in reports))
    made.add_row(
        "3-gram SAE (by chance)",
        *(f"{_digits(one.sae_3)} ({_digits(one.sae_3_by_chance)})" for one in reports),
    )
    return made


def _cell(relatives: Relatives | None, bound: str) -> str:
    if relatives is None:
        return "not searched"
    return f"{relatives.over[bound]:.1%} (any part {relatives.any_coverage[bound]:.1%})"


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
