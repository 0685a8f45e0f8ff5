"""From records of log-probabilities to the numbers of an evaluation, and how they were made."""

# N = predictions

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from lit_seqlm.cache.memory import Memory
from lit_seqlm.cache.mixing.settings import TriedSetting, best_settings
from lit_seqlm.cache.mixing.strategies import Mixing
from lit_seqlm.cache.record import Record
from lit_seqlm.metrics.bootstrap import Interval, blocks, documents, paired_bootstrap
from lit_seqlm.metrics.perplexity import exp
from lit_seqlm.results import finite
from lit_seqlm.task.reading import Reading

SAMPLES = 1000  # of the bootstrap
FEW_DOCUMENTS = 20  # with fewer, blocks of the stream are resampled instead
BLOCK = 1000  # tokens
ALL = "all"  # the memories together
# Of words: in the vocabulary, new, new and seen before, a literal <unk> of the text.
UNKNOWN = 3
KINDS = {"known": 0, "first": 1, "repeat": 2, "unk": UNKNOWN}


class Report:
    """Chooses on validation, then turns each split's record into metrics and an evaluation card.

    Args:
        make: a new mixing strategy, for each memory alone and for all of them together.
    """

    def __init__(self, cache: Memory, make: Callable[[], Mixing], unknown_id: int | None):
        self.memories, self.make, self.unknown_id = cache.memories, make, unknown_id
        self.base = "dynamic" if cache.adapter else "static"  # what the memories stand beside
        self.metrics: dict[str, float] = {}
        self.tried: list[TriedSetting] = []
        self.chosen: dict[str, int] = {}
        self.mixings: dict[str, Mixing] = {}
        self.changes: dict[str, dict[str, Interval]] = {}
        self.nlls: dict[str, dict[str, np.ndarray]] = {}  # by split, then way to score
        self.words_N = np.empty(0, np.int64)  # of the split added last

    def _choose(self, valid: Record) -> None:
        """Settings and weights, on validation alone; every memory goes on with its chosen setting."""
        self.chosen, self.tried = best_settings(valid)
        for name, rows in self._ways(self.chosen):
            self.mixings[name] = self.make()
            self.mixings[name].fit(valid, rows)
        for name, memory in self.memories.items():
            memory.choose(valid.settings[name][self.chosen[name]])

    def add(self, stage: str, record: Record, reading: Reading, datamodule: Any) -> None:
        """The numbers of a split: of validation first, on which all is chosen; test is read with what was chosen."""
        if stage == "val":
            self._choose(record)
        chosen = self.chosen if stage == "val" else dict.fromkeys(self.chosen, 0)
        nlls = {self.base: -record.static_N}
        for name, rows in self._ways(chosen):
            nlls[name] = -self.mixings[name].log_prob(record, rows)
        self.nlls[stage], self.words_N = nlls, record.words_N
        values = {f"ppl_{name}": exp(float(nll_N.mean())) for name, nll_N in nlls.items() if chosen}
        plain_N = record.words_N != self.unknown_id  # what is not <unk>
        if self.unknown_id is not None and plain_N.any() and chosen:
            without = {f"ppl_{n}_without_unk": nll_N[plain_N].mean() for n, nll_N in nlls.items()}
            values |= {name: exp(float(mean)) for name, mean in without.items()}
        values |= self._compare(stage, nlls, reading)
        values |= self._perplexities(nlls[list(nlls)[-1]], record.words_N, reading.novelty_N[1:])
        self.metrics |= {f"{stage}/{name}": value for name, value in values.items()}
        nll, scored = values["nll"], values["tokens"]
        exact = datamodule.exact_numbers(reading.split, nll, scored, reading.new_words)
        self.metrics |= {f"{stage}/{name}": value for name, value in exact.items()}

    def _ways(self, chosen: dict[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
        """Each memory alone beside the static model, then all of them."""
        for name, row in chosen.items():
            yield name, {name: row}
        if len(chosen) > 1:
            yield ALL, chosen

    def _compare(
        self, stage: str, nlls: dict[str, np.ndarray], reading: Reading
    ) -> dict[str, float]:
        """Changes of perplexity in percent: against the static model, and against the memory named before."""
        names = [name for name in nlls if name not in (self.base, ALL)]
        pairs = [(self.base, name) for name in nlls if name != self.base]
        pairs += pairwise(names)
        document_of_N = _documents(reading.starts, len(nlls[self.base]))
        found, values = self.changes.setdefault(stage, {}), dict[str, float]()
        for before, after in pairs:
            change = paired_bootstrap(nlls[before], nlls[after], document_of_N, SAMPLES, seed=0)
            key = after if before == self.base else f"{after}_over_{before}"
            found[key] = change
            low_high = {f"change_{key}_low": change.low, f"change_{key}_high": change.high}
            values |= {f"change_{key}": change.mean, **low_high}
        return finite(values)

    def _perplexities(
        self, nll_N: np.ndarray, words_N: np.ndarray, novelty_N: np.ndarray
    ) -> dict[str, float]:
        """The headline, and the same over parts of the words."""
        nll = float(nll_N.mean())
        values = {"nll": nll, "ppl": exp(nll), "tokens": float(len(nll_N))}
        known_N = words_N != self.unknown_id
        if self.unknown_id is not None and known_N.any():
            values["ppl_known"] = exp(float(nll_N[known_N].mean()))
        if novelty_N.any():
            kinds_N = np.where(known_N, novelty_N[: len(nll_N)], UNKNOWN)
            for name, kind in KINDS.items():
                of_kind_N = kinds_N == kind
                if of_kind_N.any():
                    values[f"ppl_{name}_words"] = exp(float(nll_N[of_kind_N].mean()))
                    values[f"share_{name}_words"] = float(of_kind_N.mean())
        return values

    def card(self) -> dict[str, Any]:
        """What was tuned on what, what the memories hold, and 95 % intervals of the changes."""
        intervals = {
            stage: {
                name: finite({"low": c.low, "percent": c.mean, "high": c.high})
                for name, c in of.items()
            }
            for stage, of in self.changes.items()
        }
        return {
            "tried_on_validation": [vars(tried) for tried in self.tried],
            "settings": {name: memory.settings[0] for name, memory in self.memories.items()},
            "weights": {name: mixing.describe() for name, mixing in self.mixings.items()},
            "memory": {name: memory.describe() for name, memory in self.memories.items()},
            "change_of_perplexity": intervals,
        }


def _documents(starts: np.ndarray, num_tokens: int) -> np.ndarray:
    """The document of every prediction; blocks where there are too few documents."""
    firsts = np.clip(starts - 1, 0, None)  # the first token of a stream is not predicted
    firsts = np.unique(firsts[firsts < num_tokens])
    few = len(firsts) < FEW_DOCUMENTS
    return blocks(num_tokens, BLOCK) if few else documents(firsts, num_tokens)
