"""Measuring against a peer: by turns, in processes of their own, so that a busy machine slows both alike."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median, quantiles
from typing import NamedTuple

import torch
from rich.progress import track

from lit_seqlm import process

CONTEXT = multiprocessing.get_context("forkserver")
ENOUGH = 3  # repetitions, where time is short
PAUSE = 0.02  # seconds between turns, in which the last one's threads stop spinning

Work = Callable[[], object]
Make = Callable[..., Work]


class Sample(NamedTuple):
    """One turn: its time, and the pages that the kernel had to hand out for it."""

    seconds: float
    page_faults: int


@dataclass
class Comparison:
    """A time over its peer's: median and 10th to 90th percentile of the ratios of paired turns."""

    what: str
    against: str
    ratio: float
    low: float
    high: float
    repetitions: int
    milliseconds: float
    milliseconds_against: float
    target: float | None = None

    @classmethod
    def of(
        cls,
        what: str,
        against: str,
        ours: list[float],
        theirs: list[float],
        target: float | None = None,
    ) -> "Comparison":
        """From seconds in pairs; the first pair warms up."""
        ours, theirs = ours[1:], theirs[1:]
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        low, high = spread(ratios)
        times = (1e3 * median(ours), 1e3 * median(theirs))
        return cls(what, against, median(ratios), low, high, len(ratios), *times, target)


def spread(values: list[float]) -> tuple[float, float]:
    """10th and 90th percentile."""
    deciles = quantiles(values, n=10, method="inclusive") if len(values) > 1 else values
    return deciles[0], deciles[-1]


class Worker:
    """A process that prepares `make(*args)` once and does it whenever called."""

    def __init__(self, make: Make, *args: object, keep_memory: bool = False):
        self.pipe, theirs = CONTEXT.Pipe()
        work = (theirs, torch.get_num_threads(), keep_memory, make, args)
        self.process = CONTEXT.Process(target=_serve, args=work, daemon=True)
        self.process.start()
        self.pipe.recv()

    def __call__(self) -> Sample:
        self.pipe.send(True)
        return self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(False)
        self.process.join()
        self.pipe.close()


def _serve(
    pipe: Connection, threads: int, keep_memory: bool, make: Make, args: tuple[object, ...]
) -> None:
    torch.set_num_threads(threads)
    if keep_memory:
        process.tune_memory()
    work = make(*args)
    pipe.send(True)
    while pipe.recv():
        faults, started = _faults(), time.perf_counter()
        work()
        pipe.send(Sample(time.perf_counter() - started, _faults() - faults))


def by_turns(
    workers: Mapping[str, Worker], repetitions: int, title: str, budget: float = 600.0
) -> dict[str, list[Sample]]:
    """Every worker once per repetition (and once more to warm up), each time another one first; closes them.

    Past `budget` seconds it ends as soon as there are three repetitions.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in workers}
    names, started = list(workers), time.perf_counter()
    for turn in track(range(repetitions + 1), description=title):
        if turn > ENOUGH and time.perf_counter() - started > budget:
            break
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            samples[name].append(workers[name]())
            time.sleep(PAUSE)
    for worker in workers.values():
        worker.close()
    return samples


def seconds(samples: list[Sample]) -> list[float]:
    return [sample.seconds for sample in samples]


def page_faults(samples: list[Sample]) -> int:
    return int(median(sample.page_faults for sample in samples[1:]))


def peak_megabytes(make: Make, *args: object) -> float:
    """How far one call raises the resident memory of a fresh process above what its inputs take."""
    ours, theirs = CONTEXT.Pipe()
    work = (theirs, torch.get_num_threads(), make, args)
    process = CONTEXT.Process(target=_peak, args=work)
    process.start()
    megabytes = ours.recv()
    process.join()
    return megabytes


def _peak(pipe: Connection, threads: int, make: Make, args: tuple[object, ...]) -> None:
    torch.set_num_threads(threads)
    work = make(*args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
