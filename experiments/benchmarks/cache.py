"""Speed and memory of the caches against their peers, side by side in one run.

    python experiments/benchmarks/cache.py [--only local,unbounded,codes] [--quick] [--out FILE]

A ratio is a time per token over the peer's; both take turns in one process. States are drawn from a mixture of
Gaussians, so nothing here says how well a memory predicts.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import Comparison
from memories import (
    CHUNK,
    NEIGHBOURS,
    SIZE,
    WINDOW,
    WORDS,
    Plain,
    States,
    Static,
    local_cache,
    paper_cache,
)
from rich.progress import track
from text import comparison_table, header, rounded

from lit_seqlm.cache.memory import Memory
from lit_seqlm.cache.unbounded import UnboundedCache
from lit_seqlm.console import for_tables
from lit_seqlm.results import write_atomically

HERE = Path(__file__).resolve().parent
PARTS = ("local", "unbounded", "codes")
PERIOD = 1024  # tokens that enter an index at once
PLAIN_CHUNK = 8  # tokens of a turn of the plain pointer
LIMIT_BYTES = 2 * 2**30  # for 10^7 states
console = for_tables()


def main() -> None:
    options = parser().parse_args()
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(PARTS)):
        parser().error(f"--only {','.join(unknown)}: choose among {','.join(PARTS)}")
    record, started = header(options.quick), time.monotonic()
    record["sizes"] = {"hidden": SIZE, "vocabulary": WORDS, "window": WINDOW, "k": NEIGHBOURS}
    rows: list[Comparison] = []
    if "local" in chosen:
        found, record["local"] = local_against_plain(options.quick)
        rows += found
    if "unbounded" in chosen:
        for num_states in (20_000,) if options.quick else (100_000, 1_000_000):
            found, numbers = unbounded(num_states, options.quick)
            rows += found
            record[f"unbounded_{num_states}"] = numbers
    if "codes" in chosen:
        record["codes"] = many_codes(200_000 if options.quick else 10_000_000)
    record["comparisons"] = [asdict(row) for row in rows]
    record["wall_seconds"] = round(time.monotonic() - started, 1)
    show(record, rows)
    write_atomically(options.out, json.dumps(rounded(record), indent=1) + "\n")
    console.print(f"written to {options.out}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    made.add_argument("--quick", action="store_true", help="small: to see that it works")
    made.add_argument("--out", type=Path, default=HERE / "cache.json")
    return made


def local_against_plain(quick: bool) -> tuple[list[Comparison], dict[str, Any]]:
    """A stretch of evaluation with a full window: model, loss and cache."""
    static, states = Static(), States()
    memory, plain = local_cache(), Plain(*states.block(0, WINDOW), PLAIN_CHUNK)

    def ours() -> None:
        hidden_ND, words_N, static_N = static(CHUNK)
        memory.step(hidden_ND, words_N, static_N)

    def theirs() -> None:
        plain.step(*static(PLAIN_CHUNK))

    works: dict[str, Callable[[], object]] = {"local": ours, "plain": theirs}
    works["static"] = lambda: static(CHUNK)
    times = by_turns(works, 3 if quick else 12, "local cache")
    per_token = {name: [t / CHUNK for t in values] for name, values in times.items()}
    per_token["plain"] = [t / PLAIN_CHUNK for t in times["plain"]]
    what = f"evaluation, local cache of {WINDOW:,}"
    rates = {
        f"tokens_per_second_{name}": 1 / median(values[1:]) for name, values in per_token.items()
    }
    megabytes = {"megabytes_local": memory.describe()["num_bytes"] / 2**20}
    megabytes["megabytes_plain"] = (plain.history_KV.nbytes + plain.keys_KD.nbytes) / 2**20
    rows = [
        Comparison.of(what, "plain pointer, W x V at every token", per_token["local"], per_token["plain"], 0.1),
        Comparison.of(what, "the same without a cache", per_token["local"], per_token["static"]),
    ]  # fmt: skip
    return rows, rates | megabytes


def unbounded(num_states: int, quick: bool) -> tuple[list[Comparison], dict[str, Any]]:
    """The paper's index over so many states, against a local cache of 10,000 and against faiss alone."""
    rows, numbers = [], {}
    for how, refine in (("codes alone", False), ("true distances", True)):
        started = time.perf_counter()
        memory = paper_cache(refine, num_states)
        seconds = time.perf_counter() - started
        times = one_memory(memory, 3 if quick else 10)
        what, near = f"{num_states:,} states, {how}", f"local cache of {WINDOW:,}"
        ours, local = times["unbounded"], times["local"]
        rows += [
            Comparison.of(f"evaluation, unbounded, {what}", near, ours, local, 1.0),
            Comparison.of(f"search, {what}", "faiss itself", times["search"], times["faiss"], 1.3),
        ]
        numbers[how] = {
            "tokens_per_second": PERIOD / median(ours[1:]),
            "tokens_per_second_local": PERIOD / median(local[1:]),
            "build_seconds": seconds,
            "bytes_per_state": memory.store.bytes_per_state,
        }
    return rows, numbers


def one_memory(memory: UnboundedCache, turns: int) -> dict[str, list[float]]:
    """Seconds of a period with the memory and with a local cache, of a chunk's search, of faiss alone."""
    local, static = local_cache(), Static()
    queries_ND, words_N = States().block(10**6, CHUNK)
    unit_ND = memory.normalizer(queries_ND)
    lists: Any = memory.store.index.lists
    unit = unit_ND.numpy()
    nothing_N = torch.zeros(CHUNK)

    def period(reader: Memory) -> None:
        """As many tokens as enter an index at once: scored, remembered, inserted."""
        for _ in range(PERIOD // CHUNK):
            static(CHUNK)
            reader.step(queries_ND, words_N, nothing_N)

    works: dict[str, Callable[[], object]] = {
        "unbounded": lambda: period(memory),
        "local": lambda: period(local),
        "search": lambda: memory.store.search(unit_ND, NEIGHBOURS),
        "faiss": lambda: lists.index.search(unit, NEIGHBOURS),
    }
    return by_turns(works, turns, f"{len(memory.store):,} states")


def many_codes(num_states: int) -> dict[str, Any]:
    """Only the index: so many states as 64-byte codes, and the memory that takes."""
    before, started = resident_bytes(), time.perf_counter()
    memory = paper_cache(False, num_states)
    build, held = time.perf_counter() - started, resident_bytes() - before
    queries_ND, _ = States().block(10**6, CHUNK)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        memory.store.search(memory.normalizer(queries_ND), NEIGHBOURS)
        times.append(time.perf_counter() - started)
    return {
        "num_states": num_states,
        "bytes_counted": memory.store.num_bytes,
        "bytes_resident": held,
        "bytes_per_state": memory.store.bytes_per_state,
        "limit_bytes": LIMIT_BYTES,
        "build_seconds": build,
        "queries_per_second": CHUNK / median(times[1:]),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def by_turns(
    works: dict[str, Callable[[], object]], turns: int, title: str
) -> dict[str, list[float]]:
    """Seconds of each work, one after the other in every turn; the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for _ in track(range(turns + 1), description=title):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - started)
    return times


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def show(record: dict[str, Any], rows: list[Comparison]) -> None:
    console.print(
        f"\n{record['device']}, torch {record['versions']['torch']}, commit {record['commit']}"
    )
    if rows:
        console.print(comparison_table(rows))
    for name, numbers in record.items():
        if name.startswith("unbounded_"):
            for how, found in numbers.items():
                console.print(
                    f"{int(name.removeprefix('unbounded_')):,} states, {how}: {found['tokens_per_second']:,.0f} tokens "
                    f"a second (local cache {found['tokens_per_second_local']:,.0f}), "
                    f"{found['bytes_per_state']:.0f} bytes a state, built in {found['build_seconds']:.0f} s"
                )
    if "local" in record:
        found = record["local"]
        names = ("static", "local", "plain")
        rates = [f"{name} {found[f'tokens_per_second_{name}']:,.1f}" for name in names]
        console.print(f"tokens a second: {', '.join(rates)}")
    if "codes" in record:
        found = record["codes"]
        verdict = "met" if found["bytes_resident"] <= LIMIT_BYTES else "missed"
        console.print(
            f"{found['num_states']:,} states as codes: {found['bytes_resident'] / 2**30:.2f} GiB resident "
            f"({found['bytes_counted'] / 2**30:.2f} counted), target 2: {verdict}; "
            f"{found['queries_per_second']:,.0f} queries a second, built in {found['build_seconds']:.0f} s"
        )


if __name__ == "__main__":
    main()
