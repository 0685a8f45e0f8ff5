"""A split being read: memories that score and learn, and the record that they leave."""

# N = predictions of one batch, D = hidden size

from pathlib import Path
from typing import Any

from torch import Tensor

from lit_seqlm.cache.memory import Memory
from lit_seqlm.cache.nearest import NearestMemory
from lit_seqlm.cache.neighbour_log import NeighbourLog
from lit_seqlm.cache.record import Record
from lit_seqlm.cache.record_writer import RecordWriter
from lit_seqlm.errors import UserError
from lit_seqlm.task.reading import Reading


def check_neighbours(count: int | None, cache: Memory) -> None:
    """Raise UserError where neighbours are to be kept and no memory looks for any."""
    searches = any(isinstance(memory, NearestMemory) for memory in cache.memories.values())
    if count is not None and (count < 1 or not searches):
        raise UserError(
            f"task.keep_neighbours={count}: it takes a number of at least 1, and a cache that searches: unbounded, "
            "knn, or a mixture with one of them."
        )


class StreamPass:
    """Begins with empty memories.

    Args:
        features: recorded beside what the memories say.
    """

    def __init__(self, reading: Reading, cache: Memory, features: list[str]):
        self.reading, self.cache, self.memories = reading, cache, cache.memories
        settings = {name: memory.settings for name, memory in self.memories.items()}
        own = [f"{name}/{which}" for name, m in self.memories.items() for which in m.measures]
        self.writer = RecordWriter(settings, [*own, *features])
        for memory in self.memories.values():
            memory.reset(reading.num_words)
        if cache.adapter:
            cache.adapter.reset()

    @property
    def record(self) -> Record:
        return self.writer.record()

    @property
    def num_read(self) -> int:
        return self.writer.count

    def remember(self, hidden_ND: Tensor, nll_N: Tensor, features: dict[str, Tensor]) -> None:
        """Score the next predictions from the past, then learn them."""
        words_N = self.reading.predicted(self.num_read, len(nll_N)).to(nll_N.device)
        static_N = self.reading.log_share(words_N) - nll_N.double()
        found: dict[str, Tensor] = {}
        for name, memory in self.memories.items():
            scores = memory.step(hidden_ND, words_N, static_N)
            found[name] = scores.log_prob_SN
            best, last = memory.measures
            features[f"{name}/{best}"], features[f"{name}/{last}"] = (
                scores.nearest_N,
                scores.farthest_N,
            )
        self.writer.append(static_N, words_N, found, features)

    def end(self) -> Record:
        """Give the model its own weights back, if reading changed them; what was recorded."""
        if self.cache.adapter:
            self.cache.adapter.restore()
        return self.record

    def keep_neighbours(self, folder: Path, count: int) -> None:
        """Have every memory that searches write down what it finds."""
        for name, memory in self.memories.items():
            if isinstance(memory, NearestMemory):
                kept = NeighbourLog(folder, f"{self.reading.split}.{name}")
                kept.create(self.reading.num_predictions, count, memory.metric, self.num_read)
                memory.listener = kept.append

    def state_dict(self) -> dict[str, Any]:
        adapter = self.cache.adapter
        return {
            "record": self.writer.state_dict(),
            "memories": {name: memory.state_dict() for name, memory in self.memories.items()},
            "adapter": adapter.state_dict() if adapter else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.writer.load_state_dict(state["record"])
        for name, memory in self.memories.items():
            memory.load_state_dict(state["memories"][name])
        if self.cache.adapter:
            self.cache.adapter.load_state_dict(state["adapter"])
