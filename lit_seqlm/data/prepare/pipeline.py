"""All steps from the input files to a folder of shards."""

import logging
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from lit_seqlm.data.chemistry.rows import STDIN
from lit_seqlm.data.prepare import manifest
from lit_seqlm.data.prepare.dropped import DropReport
from lit_seqlm.data.prepare.folder import whole_folder
from lit_seqlm.data.prepare.inputs import chunks, measure
from lit_seqlm.data.prepare.options import CorpusOptions
from lit_seqlm.data.prepare.parallel import Workers
from lit_seqlm.data.prepare.partitions import NUM_PARTITIONS, PartitionWriter
from lit_seqlm.data.prepare.progress import Steps
from lit_seqlm.data.prepare.steps import encode, examine, select
from lit_seqlm.data.prepare.write import write_split
from lit_seqlm.data.shards import VOCABULARY, cache_class
from lit_seqlm.errors import UserError

log = logging.getLogger(__name__)
PARTITIONS = range(NUM_PARTITIONS)
PURPOSE = {"valid": "validate on", "test": "test on"}


def prepare(options: CorpusOptions) -> dict[str, Any]:
    """Make a corpus, and return its manifest.

    Read, make canonical and check (in processes) -> spread by hash on disk -> drop what is repeated -> build the
    vocabulary -> encode -> write shards. Memory is bounded by the largest of 256 partitions. The folder's
    bytes depend on the set of sequences and the options alone, but for the report of dropped rows,
    which follows the input; not on the number of processes.

    Raises:
        UserError: for options, files or an output folder that cannot be, and if nothing is left.
    """
    options.check()
    cache_class()  # refuses, before hours of work, where litdata is missing
    with (
        whole_folder(options.output) as folder,
        Steps().shown() as steps,
        Workers(options.workers) as workers,
    ):
        return _Preparation(options, folder, steps, workers).run()


class _Preparation:
    """The steps in their order, over one working folder.

    Args:
        folder: becomes the output.
    """

    def __init__(self, options: CorpusOptions, folder: Path, steps: Steps, workers: Workers):
        self.options, self.folder, self.steps, self.workers = options, folder, steps, workers
        self.kind = options.kind
        self.work = folder / "work"
        self.raw, self.unique = self.work / "raw", self.work / "unique"
        self.unique.mkdir(parents=True)
        self.hold_out = options.hold_out.begin(self.work / "hold_out")
        self.num_rows = 0
        self.changed: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        inputs, expected = self._measure()
        self.hold_out.check_inputs(inputs)
        path = self.folder / manifest.DROPPED
        with DropReport(path, self.options.names, self.kind.has_names) as report:
            self._examine(report, expected)
            counts, edges = self._select(report)
            vocabulary = self.kind.vocabulary(counts)
            self._save_vocabulary(vocabulary, counts)
            lengths = self._encode(report, edges)
        splits = {split: self._write(split, lengths[split]) for split in lengths}
        shutil.rmtree(self.work)
        content = manifest.describe(
            self.options, inputs, self.num_rows, report.counts, self.changed, splits, vocabulary
        )
        return self._finish(content)

    def _measure(self) -> tuple[dict[str, str | None], int | None]:
        """Digests of the inputs, and about how many rows they have."""
        paths = self.options.inputs
        files = [path for path in paths if path != STDIN]
        step = self.steps.begin("input files", len(files))
        found = {}
        task = partial(measure, kind=self.kind)
        for path, measured in zip(files, self.workers.map(task, files), strict=True):
            found[path] = measured
            step.advance(1)
        digests = {
            name: found[path].sha256 if path in found else None
            for name, path in zip(self.options.names, paths, strict=True)
        }
        numbers = [found[path].num_rows if path in found else None for path in paths]
        known = [number for number in numbers if number is not None]
        return digests, sum(known) if len(known) == len(numbers) else None

    def _examine(self, report: DropReport, expected: int | None) -> None:
        step = self.steps.begin(self.kind.step, expected)
        partitions = PartitionWriter(self.raw)
        rows = chunks(self.options.inputs, self.kind, report)
        task = partial(examine, kind=self.kind, hold_out=self.hold_out)
        listed: set[str] = set()
        for found in self.workers.map(task, rows):
            partitions.add(found.keys, found.texts, found.names)
            report.add(found.drops)
            self.changed.update(found.changes)
            listed |= found.listed
            self.num_rows += found.num_rows
            step.advance(found.num_rows)
        partitions.flush()
        step.finish()
        self.hold_out.check_used(listed, ", ".join(self.options.names))

    def _select(self, report: DropReport) -> tuple[Counter[str], list[int]]:
        """Token counts, and the edges of what is held out."""
        step = self.steps.begin(f"repeated {self.kind.nouns}", NUM_PARTITIONS)
        task = partial(
            select, folder=self.raw, target=self.unique, kind=self.kind, hold_out=self.hold_out
        )
        counts: Counter[str] = Counter()
        candidates, num_kept = [], 0
        for found in self.workers.map(task, PARTITIONS):
            report.add(found.repeated)
            counts.update(found.counts)
            candidates.append(found.candidates)
            num_kept += found.num_kept
            step.advance(1)
        if not num_kept:
            raise UserError(
                f"no {self.kind.noun} is left of {self.num_rows:,} rows: {_listed(report.counts)}."
            )
        shutil.rmtree(self.raw)
        edges = self.hold_out.edges(np.concatenate(candidates), len(self.kind.splits) - 1)
        return counts, edges

    def _save_vocabulary(self, vocabulary: list[str], counts: Counter[str]) -> None:
        text = "".join(f"{token}\n" for token in vocabulary)
        (self.folder / VOCABULARY).write_text(text, encoding="utf-8")
        ranked = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        (self.folder / manifest.COUNTS).write_text(manifest.as_json(ranked), encoding="utf-8")

    def _encode(self, report: DropReport, edges: list[int]) -> dict[str, Counter[int]]:
        """How many sequences of each split have which length."""
        step = self.steps.begin("token ids", NUM_PARTITIONS)
        task = partial(
            encode,
            folder=self.unique,
            vocabulary=self.folder / VOCABULARY,
            edges=edges,
            kind=self.kind,
        )
        lengths: dict[str, Counter[int]] = {split: Counter() for split in self.kind.splits}
        for found in self.workers.map(task, PARTITIONS):
            report.add(found.drops)
            for split, counted in found.lengths.items():
                lengths[split].update(counted)
            step.advance(1)
        self._check_splits({split: one.total() for split, one in lengths.items()}, report)
        return lengths

    def _check_splits(self, sizes: dict[str, int], report: DropReport) -> None:
        train, *held_out = sizes.values()
        if not train:
            raise UserError(
                f"no {self.kind.noun} is left to train on of {self.num_rows:,} rows: "
                f"{_listed(report.counts)}; {sum(held_out):,} held out. Give a smaller --holdout."
            )
        empty = [PURPOSE[split] for split, size in sizes.items() if not size]
        if empty:
            log.warning(
                "nothing is held out to %s: training needs some. Give a larger --holdout.",
                " or to ".join(empty),
            )

    def _write(self, split: str, lengths: Counter[int]) -> dict[str, Any]:
        step = self.steps.begin(f"shards of {split}", lengths.total())
        target, size = self.folder / split, self.options.shard_size
        num_written = write_split(split, self.unique, target, size, step.advance)
        assert num_written == lengths.total(), "every sequence is written"
        return {
            self.kind.nouns: num_written,
            "tokens": sum(length * count for length, count in lengths.items()),
            "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        }

    def _finish(self, content: dict[str, Any]) -> dict[str, Any]:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        step = self.steps.begin("checksums", len(files))
        digests = {}
        names = map(str, files)
        for path, digest in zip(files, self.workers.map(pooch.file_hash, names), strict=True):
            digests[path.relative_to(self.folder).as_posix()] = digest
            step.advance(1)
        manifest.write_manifest(self.folder, content, digests)
        return content


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()) or "no rows"
