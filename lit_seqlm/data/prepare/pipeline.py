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
from lit_seqlm.data.prepare.inputs import check_inputs, chunks, measure
from lit_seqlm.data.prepare.options import Options
from lit_seqlm.data.prepare.parallel import Workers
from lit_seqlm.data.prepare.partitions import NUM_PARTITIONS, PartitionWriter
from lit_seqlm.data.prepare.progress import Steps
from lit_seqlm.data.prepare.steps import Examined, encode, examine, select, share_limit
from lit_seqlm.data.prepare.write import write_split
from lit_seqlm.data.shards import VOCABULARY, cache_class
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.smiles_vocabulary import build_vocabulary, read_vocabulary

log = logging.getLogger(__name__)
PARTITIONS = range(NUM_PARTITIONS)


def prepare(options: Options) -> dict[str, Any]:
    """Make a corpus, and return its manifest.

    Read, make canonical and check (in processes) -> spread by hash on disk -> drop what is repeated -> build the
    vocabulary -> encode -> write shards. Memory is bounded by the largest of 256 partitions. The folder's
    bytes depend on the set of molecules and the options alone, but for the report of dropped rows,
    which follows the input; not on the number of processes.

    Raises:
        UserError: for options, files or an output folder that cannot be, and if no molecule is left.
    """
    options.check()
    cache_class()  # refuses, before hours of work, where litdata is missing
    given = None if options.vocabulary is None else read_vocabulary(options.vocabulary)
    check_inputs(options.inputs, options.column)
    with (
        whole_folder(options.output) as folder,
        Steps().shown() as steps,
        Workers(options.workers) as workers,
    ):
        return _Preparation(options, folder, steps, workers).run(given)


class _Preparation:
    """The steps in their order, over one working folder.

    Args:
        folder: becomes the output.
    """

    def __init__(self, options: Options, folder: Path, steps: Steps, workers: Workers):
        self.options, self.folder, self.steps, self.workers = options, folder, steps, workers
        self.work = folder / "work"
        self.raw, self.unique = self.work / "raw", self.work / "unique"
        self.unique.mkdir(parents=True)
        self.num_rows = 0

    def run(self, given: list[str] | None) -> dict[str, Any]:
        inputs, expected = self._measure()
        with DropReport(self.folder / manifest.DROPPED, self.options.names) as report:
            self._examine(report, expected)
            counts, side_limit = self._select(report)
            vocabulary = given or build_vocabulary(counts, self.options.min_count)
            self._save_vocabulary(vocabulary, counts)
            lengths = self._encode(report, side_limit)
        splits = {split: self._write(split, lengths[split]) for split in lengths}
        shutil.rmtree(self.work)
        content = manifest.describe(
            self.options, inputs, self.num_rows, report.counts, splits, vocabulary
        )
        return self._finish(content)

    def _measure(self) -> tuple[dict[str, str | None], int | None]:
        """Digests of the inputs, and about how many rows they have."""
        paths = self.options.inputs
        files = [path for path in paths if path != STDIN]
        step = self.steps.begin("input files", len(files))
        found = {}
        for path, measured in zip(files, self.workers.map(measure, files), strict=True):
            found[path] = measured
            step.advance(1)
        digests = {
            name: found[path].sha256 if path in found else None
            for name, path in zip(self.options.names, paths, strict=True)
        }
        is_known = STDIN not in paths
        return digests, sum(one.num_rows for one in found.values()) if is_known else None

    def _examine(self, report: DropReport, expected: int | None) -> None:
        step = self.steps.begin("canonical SMILES", expected)
        partitions = PartitionWriter(self.raw)
        rows = chunks(self.options.inputs, self.options.column, report)
        for found in self.workers.map(partial(_examine_chunk, options=self.options), rows):
            partitions.add(found.keys, found.smiles)
            report.add(found.drops)
            self.num_rows += found.num_rows
            step.advance(found.num_rows)
        partitions.flush()
        step.finish()

    def _select(self, report: DropReport) -> tuple[Counter[str], int]:
        """Token counts, and the side below which a molecule is held out."""
        step = self.steps.begin("repeated molecules", NUM_PARTITIONS)
        task = partial(select, folder=self.raw, target=self.unique, options=self.options)
        counts: Counter[str] = Counter()
        sides, num_kept = [], 0
        for found in self.workers.map(task, PARTITIONS):
            report.add((order, "repeated") for order in found.repeated.tolist())
            counts.update(found.counts)
            sides.append(found.sides)
            num_kept += found.num_kept
            step.advance(1)
        if not num_kept:
            raise UserError(
                f"no molecule is left of {self.num_rows:,} rows: {_listed(report.counts)}."
            )
        held_out = np.sort(np.concatenate(sides))
        limit = share_limit(self.options.holdout)
        if len(held_out) > self.options.max_holdout:
            limit = int(held_out[self.options.max_holdout])
        shutil.rmtree(self.raw)
        return counts, limit

    def _save_vocabulary(self, vocabulary: list[str], counts: Counter[str]) -> None:
        text = "".join(f"{token}\n" for token in vocabulary)
        (self.folder / VOCABULARY).write_text(text, encoding="utf-8")
        ranked = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        (self.folder / manifest.COUNTS).write_text(manifest.as_json(ranked), encoding="utf-8")

    def _encode(self, report: DropReport, side_limit: int) -> dict[str, Counter[int]]:
        """How many molecules of each split have which length."""
        step = self.steps.begin("token ids", NUM_PARTITIONS)
        task = partial(
            encode,
            folder=self.unique,
            vocabulary=self.folder / VOCABULARY,
            side_limit=side_limit,
            isomeric=self.options.isomeric,
        )
        lengths: dict[str, Counter[int]] = {"train": Counter(), "valid": Counter()}
        for found in self.workers.map(task, PARTITIONS):
            report.add(found.drops)
            for split, counted in found.lengths.items():
                lengths[split].update(counted)
            step.advance(1)
        if not lengths["train"]:
            raise UserError(
                f"no molecule is left to train on of {self.num_rows:,} rows: "
                f"{_listed(report.counts)}; {lengths['valid'].total():,} held out. Give a smaller --holdout."
            )
        if not lengths["valid"]:
            log.warning(
                "nothing is held out to validate on: training needs some. Give a larger --holdout."
            )
        return lengths

    def _write(self, split: str, lengths: Counter[int]) -> dict[str, Any]:
        step = self.steps.begin(f"shards of {split}", lengths.total())
        target, size = self.folder / split, self.options.shard_molecules
        num_molecules = write_split(split, self.unique, target, size, step.advance)
        assert num_molecules == lengths.total(), "every molecule is written"
        return {
            "molecules": num_molecules,
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


def _examine_chunk(chunk: tuple[int, list[str]], options: Options) -> Examined:
    return examine(*chunk, options)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common()) or "no rows"
