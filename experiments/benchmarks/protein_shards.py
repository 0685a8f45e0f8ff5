"""From FASTA to shards and back: sequences a second, and memory that must not grow with their number."""

# N = sequences of a piece, L = residues of all of them

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from measure import spread
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from lit_seqlm.data.shards import MANIFEST, cache_class
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import STANDARD

HERE = Path(__file__).resolve().parent
PREPARE, STREAM = HERE.parent / "prepare_corpus.py", HERE / "protein_stream.py"
STATUS = Path("/proc/self/status")
MOST_GROWTH = 64  # megabytes
# Residues of the median protein of Swiss-Prot's sample, and the standard deviation of the lengths' logarithm.
MEDIAN, SPREAD = 301, 0.64
SHORT = 40  # residues: for many sequences in little time
SHORTEST, LONGEST = 20, 2175
PIECE, LINE = 10_000, 60  # sequences made at once, residues of a line
POLL_SECONDS = 0.05
STEPS = {"prepare": "FASTA to shards, one process", "stream": "an epoch of packed batches"}
DISK = (
    400  # bytes of a short sequence: its file, the work of the preparation and the shards at once
)


class Run(NamedTuple):
    """A program that has ended: how long it took, and the most megabytes that it held at once."""

    seconds: float
    megabytes: float


def check(most_sequences: int) -> None:
    """Raise UserError now, not in ten minutes, for what the shards would lack."""
    cache_class()
    if not STATUS.is_file():
        raise UserError(
            f"the peak of memory stands in {STATUS}, which only Linux has. Leave out shards."
        )
    folder, room = tempfile.gettempdir(), DISK * most_sequences
    free = shutil.disk_usage(folder).free
    if free < room:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB left, {most_sequences:,} sequences take {room / 1e9:.1f} for a while. "
            "Let TMPDIR name a folder with more room."
        )


def shard_speed(number: int, workers: tuple[int, ...], repetitions: int) -> list[dict[str, float]]:
    """The whole command as a user types it, its start included, over proteins with lengths like Swiss-Prot's.

    It reads, cleans, drops repeats, encodes, writes and checks sums.

    Args:
        workers: numbers of processes, which take turns.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.fasta")
        num_residues = write_fasta(path, number, MEDIAN, SPREAD)
        seconds: dict[int, list[float]] = {count: [] for count in workers}
        turns = [count for _ in range(repetitions) for count in workers]
        for count in track(turns, description=f"{number:,} proteins to shards"):
            seconds[count].append(prepared(path, number, count).seconds)
            shutil.rmtree(path.with_suffix(""))
    return [_speed(number, num_residues, count, times) for count, times in seconds.items()]


def _speed(number: int, num_residues: int, workers: int, seconds: list[float]) -> dict[str, float]:
    rates = [number / one for one in seconds]
    low, high = spread(rates)
    return {
        "sequences": number,
        "residues": num_residues,
        "workers": workers,
        "repetitions": len(rates),
        "seconds": median(seconds),
        "sequences_per_second": median(rates),
        "low": low,
        "high": high,
        "residues_per_second": num_residues / median(seconds),
    }


def shard_memory(few: int, many: int) -> dict[str, float]:
    """Peaks of the preparation in one process, and of an epoch of packed batches, at two sizes."""
    found: dict[str, float] = {"few": few, "many": many, "residues": SHORT, "target": MOST_GROWTH}
    for name, number in (("few", few), ("many", many)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "made.fasta")
            for step in track(("write", "prepare", "stream"), f"memory of {number:,} proteins"):
                if step == "write":
                    write_fasta(path, number, SHORT, 0.0)
                    continue
                run = prepared(path, number, 1) if step == "prepare" else streamed(path)
                found[f"{step}_megabytes_{name}"] = run.megabytes
                found[f"{step}_seconds_{name}"] = run.seconds
    for step in STEPS:
        growth = found[f"{step}_megabytes_many"] - found[f"{step}_megabytes_few"]
        found[f"{step}_growth_megabytes"] = growth
    return found


def write_fasta(path: Path, number: int, median_length: int, deviation: float) -> int:
    """Random sequences, log-normal in length, and how many residues they have; the same every time."""
    rng, total = np.random.default_rng(0), 0
    letters = np.frombuffer(STANDARD.encode(), np.uint8)
    with path.open("wb") as file:
        for first in range(0, number, PIECE):
            size = min(PIECE, number - first)
            normal_N = rng.standard_normal(size)
            lengths_N = np.exp(np.log(median_length) + deviation * normal_N).round()
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


def prepared(path: Path, number: int, workers: int) -> Run:
    """A folder of shards beside the file, with what the command line has where nothing is said."""
    output = path.with_suffix("")
    words = [str(PREPARE), str(path), "--kind", "protein", "--output", str(output)]
    run = _watched([*words, "--workers", str(workers)])
    rows = json.loads((output / MANIFEST).read_text())["rows"]
    assert rows == number, f"{rows} of {number}"
    return run


def streamed(path: Path) -> Run:
    """An epoch of packed batches from those shards, in a process of its own."""
    return _watched([str(STREAM), str(path.with_suffix(""))])


def _watched(words: list[str]) -> Run:
    """Run a program of ours to its end; Linux itself counts the peak, from the program's start on."""
    with tempfile.TemporaryFile() as log:
        started, most = time.perf_counter(), 0
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log)
        try:
            while process.poll() is None:
                most = max(most, _peak(process.pid))
                time.sleep(POLL_SECONDS)
        finally:
            process.terminate()  # where this program is stopped; one that has ended does not mind
            process.wait()
        seconds = time.perf_counter() - started
        log.seek(0)
        last = log.read().decode(errors="replace").strip().splitlines()[-1:]
    if process.returncode:
        raise UserError(f"python {' '.join(words)} failed: {' '.join(last)}")
    return Run(seconds, most / 2**10)


def _peak(pid: int) -> int:
    """Kilobytes; none once it has ended."""
    try:
        lines = (STATUS.parents[1] / str(pid) / STATUS.name).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def speed_table(found: list[dict[str, float]]) -> Table:
    table = Table(
        "FASTA to shards",
        "workers",
        "sequences/s",
        "10th-90th",
        "residues/s",
        "s",
        "n",
        box=SIMPLE_HEAD,
    )
    for row in found:
        table.add_row(
            f"{row['sequences']:,.0f} proteins, {row['residues'] / 1e6:,.1f} million residues",
            f"{row['workers']:.0f}",
            f"{row['sequences_per_second']:,.0f}",
            f"{row['low']:,.0f}-{row['high']:,.0f}",
            f"{row['residues_per_second']:,.0f}",
            f"{row['seconds']:.1f}",
            f"{row['repetitions']:.0f}",
        )
    return table


def memory_table(found: dict[str, float]) -> Table:
    sizes = [f"{found[name]:,.0f} proteins, MB" for name in ("few", "many")]
    table = Table("peak memory", *sizes, "growth", "target", "", "seconds", box=SIMPLE_HEAD)
    for step, label in STEPS.items():
        growth = found[f"{step}_growth_megabytes"]
        seconds = [f"{found[f'{step}_seconds_{name}']:,.0f}" for name in ("few", "many")]
        table.add_row(
            label,
            *(f"{found[f'{step}_megabytes_{name}']:,.0f}" for name in ("few", "many")),
            f"{growth:+,.0f}",
            f"{found['target']:.0f}",
            "met" if growth <= found["target"] else "missed",
            " and ".join(seconds),
        )
    return table
