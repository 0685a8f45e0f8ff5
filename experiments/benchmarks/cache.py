"""Speed and memory of the caches against their peers, side by side in one run.

    python experiments/benchmarks/cache.py [--only local,unbounded,codes] [--quick] [--out FILE]

A ratio is a time per token over the peer's; both take turns in one process. States are drawn from a mixture of
Gaussians, so nothing here says how well a memory predicts.
"""

# N = tokens, D = hidden size, W = window, V = words

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import Comparison
from rich.progress import track
from text import comparison_table, header, rounded
from torch import Tensor

from lit_seqlm.cache.local import LocalCache
from lit_seqlm.cache.unbounded import UnboundedCache
from lit_seqlm.console import for_tables
from lit_seqlm.model.lstm import LSTMLanguageModel
from lit_seqlm.objective.causal_lm import CausalLM
from lit_seqlm.data.batch import Batch
from lit_seqlm.regularizer.none import NoRegularizer
from lit_seqlm.results import write_atomically
from lit_seqlm.search.store import Store

HERE = Path(__file__).resolve().parent
PARTS = ("local", "unbounded", "codes")
SIZE, WORDS, WINDOW, CHUNK, PLAIN_CHUNK = 256, 10_000, 10_000, 512, 8
CENTRES, SPREAD, BLOCK = 2_000, 0.5, 50_000
NEIGHBOURS = 1024
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
        rows += local_against_plain(options.quick)
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


class States:
    """Blocks of states and words that are the same for every reader."""

    def __init__(self) -> None:
        self.centres_CD = torch.randn(CENTRES, SIZE, generator=torch.Generator().manual_seed(0))

    def block(self, number: int, rows: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(number + 1)
        centre_N = torch.randint(CENTRES, (rows,), generator=generator)
        noise_ND = SPREAD * torch.randn(rows, SIZE, generator=generator)
        return self.centres_CD[centre_N] + noise_ND, (centre_N * 5 + torch.arange(rows) % 5) % WORDS


class Static:
    """Forward pass and next-word loss of a small LSTM language model, as evaluation does it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = LSTMLanguageModel(WORDS, SIZE, 1, 0.0, "tied", None, None).eval()
        self.objective, self.tokens_1T = (
            CausalLM(0.0, "fused"),
            torch.randint(WORDS, (1, CHUNK + 1)),
        )

    def __call__(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = Batch(self.tokens_1T[:, :length], self.tokens_1T[:, 1 : length + 1])
        output = self.model(batch.tokens_BT, None)
        loss = self.objective(output, self.model.output_embedding, batch, NoRegularizer())
        return output.raw_BTD[0], loss.targets_N, -loss.clean_nll_N


class Plain:
    """The pointer of the widely used LSTM code: a one-hot history, W x V, weighed anew at every token."""

    def __init__(self, keys_WD: Tensor, words_W: Tensor):
        self.keys_WD, self.words_W = keys_WD, words_W
        self.history_WV = F.one_hot(words_W, WORDS).float()

    def step(self, hidden_ND: Tensor, words_N: Tensor, static_N: Tensor) -> Tensor:
        found = []
        for hidden_D, word in zip(hidden_ND, words_N, strict=True):
            weight_W = torch.softmax(0.662 * (self.keys_WD @ hidden_D), dim=0)
            prob_V = (weight_W[:, None] * self.history_WV).sum(0)
            found.append(prob_V[word].log())
            self.keys_WD = torch.cat([self.keys_WD[1:], hidden_D[None]])
            latest_1V = F.one_hot(word[None], WORDS).float()
            self.history_WV = torch.cat([self.history_WV[1:], latest_1V])
        return torch.stack(found)


def local_cache(size: int = WINDOW) -> LocalCache:
    memory = LocalCache(0.1, size, 0.662, "none", "immediate", {})
    memory.reset(WORDS)
    memory.step(*States().block(0, size), torch.zeros(size))
    return memory


def local_against_plain(quick: bool) -> list[Comparison]:
    """A stretch of evaluation with a full window: model, loss and cache."""
    static, states = Static(), States()
    memory, plain = local_cache(), Plain(*states.block(0, WINDOW))

    def ours() -> None:
        hidden_ND, words_N, static_N = static(CHUNK)
        memory.step(hidden_ND, words_N, static_N)

    def theirs() -> None:
        plain.step(*static(PLAIN_CHUNK))

    works = {"local": ours, "plain": theirs, "static": lambda: static(CHUNK)}
    times = by_turns(works, 3 if quick else 12, "local cache")
    per_token = {name: [t / CHUNK for t in values] for name, values in times.items()}
    per_token["plain"] = [t / PLAIN_CHUNK for t in times["plain"]]
    what = f"evaluation, local cache of {WINDOW:,}"
    return [
        Comparison.of(what, "plain pointer, W x V at every token", per_token["local"], per_token["plain"], 0.1),
        Comparison.of(what, "the same without a cache", per_token["local"], per_token["static"]),
    ]  # fmt: skip


def store(refine: bool, num_states: int) -> Store:
    return Store(
        kind="ivfpq", metric="l2", num_lists=4096, num_probes=8, code_bytes=64, capacity=None, evict="none",
        refine=refine, rebuild="never", first_build=min(num_states, 200_000), probe=0, seed=0,
    )  # fmt: skip


def filled(memory: UnboundedCache, num_states: int) -> None:
    memory.reset(WORDS)
    states = States()
    for number in track(range(-(-num_states // BLOCK)), description=f"{num_states:,} states"):
        rows = min(BLOCK, num_states - number * BLOCK)
        hidden_ND, words_N = states.block(number, rows)
        memory.store.insert(memory.normalizer(hidden_ND), words_N, torch.zeros(rows))


def unbounded(num_states: int, quick: bool) -> tuple[list[Comparison], dict[str, Any]]:
    """The paper's index over so many states, against a local cache of 10,000 and against faiss alone."""
    states, local, static = States(), local_cache(), Static()
    rows, numbers = [], {}
    for refine in (False, True):
        memory = UnboundedCache(
            0.1, NEIGHBOURS, "gaussian", "kth", 1.0, 1.0, "l2", store(refine, num_states), 1024, {}
        )
        started = time.perf_counter()
        filled(memory, num_states)
        seconds = time.perf_counter() - started
        queries_ND, words_N = states.block(10**6, CHUNK)
        raw: Any = memory.store.index.raw
        unit_ND = memory.normalizer(queries_ND).numpy()

        works: dict[str, Callable[[], object]] = {
            "unbounded": lambda: (static(CHUNK), memory.score(queries_ND, words_N)),
            "local": lambda: (static(CHUNK), local.score(queries_ND, words_N)),
            "search": lambda: memory.store.search(torch.from_numpy(unit_ND), NEIGHBOURS),
            "faiss": lambda: raw.search(unit_ND, NEIGHBOURS),
        }
        times = by_turns(works, 3 if quick else 10, f"{num_states:,} states")
        how = "true distances" if refine else "codes alone"
        what = f"{num_states:,} states, {how}"
        rows += [
            Comparison.of(f"evaluation, unbounded, {what}", f"local cache of {WINDOW:,}", times["unbounded"], times["local"], 1.0),
            Comparison.of(f"search, {what}", "faiss itself", times["search"], times["faiss"], 1.3),
        ]  # fmt: skip
        numbers[how] = {
            "tokens_per_second": CHUNK / median(times["unbounded"][1:]),
            "tokens_per_second_local": CHUNK / median(times["local"][1:]),
            "build_seconds": seconds,
            "bytes_per_state": memory.store.bytes_per_state,
        }
    return rows, numbers


def many_codes(num_states: int) -> dict[str, Any]:
    """Only the index: so many states as 64-byte codes, and the memory that takes."""
    memory = UnboundedCache(
        0.1, NEIGHBOURS, "gaussian", "kth", 1.0, 1.0, "l2", store(False, num_states), 1024, {}
    )
    before, started = resident_bytes(), time.perf_counter()
    filled(memory, num_states)
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
                    f"{name.removeprefix('unbounded_')} states, {how}: {found['tokens_per_second']:,.0f} tokens a second "
                    f"(local cache {found['tokens_per_second_local']:,.0f}), {found['bytes_per_state']:.0f} bytes a state, "
                    f"built in {found['build_seconds']:.0f} s"
                )
    if "codes" in record:
        found = record["codes"]
        verdict = "met" if found["bytes_resident"] <= LIMIT_BYTES else "missed"
        console.print(
            f"{found['num_states']:,} states as codes: {found['bytes_resident'] / 2**30:.2f} GiB resident "
            f"({found['bytes_counted'] / 2**30:.2f} counted), target 2: {verdict}; "
            f"{found['queries_per_second']:,.0f} queries a second, built in {found['build_seconds']:.0f} s"
        )


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
