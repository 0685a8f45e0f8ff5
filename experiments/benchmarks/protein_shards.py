"""From FASTA to shards and back: sequences a second, and memory that must not grow with their number."""

# N = sequences of a piece, L = residues of all of them

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from lit_seqlm.data.masking import CountedMasking
from lit_seqlm.data.prepare.options import ProteinOptions
from lit_seqlm.data.prepare.pipeline import prepare
from lit_seqlm.data.sharded_packed import ShardedPackedData
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import STANDARD, AminoAcidTokenizer

MOST_GROWTH = 64  # megabytes
MEDIAN, SPREAD = (
    301,
    0.64,
)  # residues of Swiss-Prot's sample, and the standard deviation of their logarithm
SHORT = 40  # residues: for many sequences in little time
SHORTEST, LONGEST = 20, 2175
PIECE, LINE = 10_000, 60  # sequences made at once, residues of a line
ROW, ROWS = 2176, 16  # tokens of a packed row, rows of a batch


def shard_speed(num_sequences: int, workers: int) -> dict[str, float]:
    """The whole way of a made FASTA file with lengths like Swiss-Prot's: read, clean, drop repeats, encode, write."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.fasta")
        num_residues = write_fasta(path, num_sequences, MEDIAN, SPREAD)
        started = time.perf_counter()
        manifest = prepare(options(path, workers))
        seconds = time.perf_counter() - started
    assert manifest["rows"] == num_sequences
    return {
        "sequences": num_sequences,
        "residues": num_residues,
        "workers": workers,
        "seconds": seconds,
        "sequences_per_second": num_sequences / seconds,
        "residues_per_second": num_residues / seconds,
    }


def shard_memory(few: int, many: int) -> dict[str, float]:
    """Peaks of the preparation and of an epoch of packed batches, each in a process of its own, at two sizes."""
    found: dict[str, float] = {"few": few, "many": many, "residues": SHORT}
    with tempfile.TemporaryDirectory() as folder:
        for name, number in (("few", few), ("many", many)):
            path = Path(folder, f"{name}.fasta")
            write_fasta(path, number, SHORT, 0.0)
            for step, work in (("prepare", prepared), ("stream", streamed)):
                started = time.perf_counter()
                found[f"{step}_megabytes_{name}"] = _alone(work, path)
                found[f"{step}_seconds_{name}"] = time.perf_counter() - started
    for step in ("prepare", "stream"):
        growth = found[f"{step}_megabytes_many"] - found[f"{step}_megabytes_few"]
        found[f"{step}_growth_megabytes"] = growth
    return found


def write_fasta(path: Path, number: int, median: int, spread: float) -> int:
    """Random sequences, log-normal in length, and how many residues they have; the same every time."""
    rng, total = np.random.default_rng(0), 0
    letters = np.frombuffer(STANDARD.encode(), np.uint8)
    with path.open("wb") as file:
        for first in range(0, number, PIECE):
            size = min(PIECE, number - first)
            lengths_N = np.exp(np.log(median) + spread * rng.standard_normal(size)).round()
            lengths_N = lengths_N.clip(SHORTEST, LONGEST).astype(np.int64)
            text_L = letters[rng.integers(len(letters), size=lengths_N.sum())].tobytes()
            ends = np.cumsum(lengths_N).tolist()
            for row, (end, length) in enumerate(zip(ends, lengths_N.tolist(), strict=True), first):
                lines = [
                    text_L[start : min(start + LINE, end)]
                    for start in range(end - length, end, LINE)
                ]
                file.write(b">made%d\n%s\n" % (row, b"\n".join(lines)))
            total += len(text_L)
    return total


def options(path: Path, workers: int) -> ProteinOptions:
    """What the command line has where nothing is said."""
    return ProteinOptions(
        inputs=(str(path),),
        output=path.with_suffix(""),
        min_len=2,
        max_len=LONGEST,
        column=None,
        over_long="drop",
        ends="cls",
        ambiguous="keep",
        gapped=False,
        holdout=0.001,
        max_holdout=100_000,
        clusters=None,
        split=None,
        shard_proteins=2**17,
        workers=workers,
    )


def prepared(path: Path) -> float:
    """Prepare in this process alone, and say its peak."""
    prepare(options(path, workers=1))
    return _peak()


def streamed(path: Path) -> float:
    """Read an epoch of packed batches, and say this process's peak."""
    torch.set_num_threads(1)
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    masking = CountedMasking(0.15, 0.8, 0.1, "content", "row")
    source, budget = ShardSource(str(path.with_suffix(""))), ROW * ROWS
    data = ShardedPackedData(source, tokenizer, masking, ROW, budget, budget, 2**16, 1)
    data.setup()
    num_read = 0
    for batch in data.train_dataloader():
        assert batch.mask_BT is not None
        assert batch.segments_BT is not None
        num_read += int(batch.segments_BT[0, -1]) + 1 if batch.mask_BT.any() else 0
    if num_read != source.num_sequences("train"):
        raise UserError(
            f"{path}: {num_read:,} sequences came, not {source.num_sequences('train'):,}."
        )
    return _peak()


def _alone(work: Callable[[Path], float], path: Path) -> float:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, path).result()


def _peak() -> float:
    """Most megabytes that this process held at once: Linux's own count, from the start of its program on."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) / 1024
